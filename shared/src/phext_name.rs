//! The name of a phext, as in `p=` and, followed by `.phext`, on disk. The unnamed phext has an empty name: it is
//! used by requests without `p`, and its file is `.phext`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, PathBuf};
use std::sync::Arc;

use crate::limits::PHEXT_NAME_BYTES;

/// A phext's name: up to 240 bytes, no slash or backslash, no control character, no leading dot. A phext in a folder
/// of the tenant's directory has the folder too, which no client can name.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PhextName {
    name: String,
    folder: Option<Arc<Folder>>,
}

/// A folder of a tenant's directory, and not another one that is at its path later.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Folder {
    /// From the directory, without links.
    pub path: PathBuf,
    /// Its number in the file system.
    pub inode: u64,
}

/// Why a text is not a phext's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPhextName {
    /// More than 240 bytes.
    #[error("the phext's name is longer than {PHEXT_NAME_BYTES} bytes")]
    TooLong,
    /// A leading dot: such files are hidden, and used for other purposes.
    #[error("a phext's name does not begin with a dot")]
    LeadingDot,
    /// A control character.
    #[error("the phext's name has a control character in it")]
    ControlCharacter,
    /// A name that tries to leave the tenant's directory.
    #[error("a phext's name has no slash, no backslash, and does not begin with '..'")]
    LeavesDirectory,
}

impl PhextName {
    /// Checks a client's name, percent-decoded. An empty one names the unnamed phext, as in SQ.
    pub fn parse(text: &str) -> Result<Self, InvalidPhextName> {
        if text.contains(['/', '\\']) || text.starts_with("..") {
            return Err(InvalidPhextName::LeavesDirectory);
        }
        if text.starts_with('.') {
            return Err(InvalidPhextName::LeadingDot);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidPhextName::ControlCharacter);
        }
        if text.len() > PHEXT_NAME_BYTES {
            return Err(InvalidPhextName::TooLong);
        }
        Ok(Self { name: text.to_owned(), folder: None })
    }

    /// The name of the phext of this name in a folder; `None` when the folder's path does not stay below the tenant's
    /// directory, or has control characters, which log lines would repeat. Clients reach it by the name of a link.
    #[must_use]
    pub fn in_folder(&self, folder: Folder) -> Option<Self> {
        let is_plain = |component: Component<'_>| {
            matches!(component, Component::Normal(_))
                && !component.as_os_str().as_bytes().iter().any(u8::is_ascii_control)
        };
        let is_inside = folder.path.components().all(is_plain);
        is_inside.then(|| Self { name: self.name.clone(), folder: Some(Arc::new(folder)) })
    }

    /// The folder in which it is.
    pub fn folder(&self) -> Option<&Folder> {
        self.folder.as_deref()
    }

    /// The name as text, without the folder.
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

/// Names are looked up for each request, and few have a folder: a name without one costs nothing more.
impl Hash for PhextName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        if let Some(folder) = &self.folder {
            folder.path.hash(state);
        }
    }
}

impl fmt::Display for PhextName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(folder) = &self.folder {
            write!(f, "{}/", folder.path.display())?;
        }
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_at_its_limit() {
        assert!(PhextName::parse(&"n".repeat(240)).is_ok());
        assert_eq!(PhextName::parse(&"n".repeat(241)), Err(InvalidPhextName::TooLong));
        assert_eq!(PhextName::parse(""), Ok(PhextName::default()));
        assert_eq!(PhextName::parse("."), Err(InvalidPhextName::LeadingDot));
        assert_eq!(PhextName::parse(".a"), Err(InvalidPhextName::LeadingDot));
        assert_eq!(PhextName::parse("a\u{7f}"), Err(InvalidPhextName::ControlCharacter));
        assert_eq!(PhextName::parse("a\u{85}"), Err(InvalidPhextName::ControlCharacter));
        for leaving in ["..", "../a", "a/b", "a\\b", "..a", "/etc/passwd"] {
            assert_eq!(PhextName::parse(leaving), Err(InvalidPhextName::LeavesDirectory));
        }
        let notes = PhextName::parse("notes").unwrap();
        let in_folder = |path: &str| notes.in_folder(Folder { path: path.into(), inode: 1 });
        assert_eq!(in_folder("years/2026").unwrap().to_string(), "years/2026/notes");
        for outside in ["/years", "..", "years/../..", "./years", "a\nb"] {
            assert_eq!(in_folder(outside), None, "{outside:?}");
        }
        for fine in ["a", "a..b", "a.phext", "ä 1", "\u{1f506}", "-", "~"] {
            assert!(PhextName::parse(fine).is_ok(), "{fine:?} was refused");
        }
    }
}
