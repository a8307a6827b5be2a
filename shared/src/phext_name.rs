//! The name of a phext, as it stands in `p=` and, with `.phext` behind it, on disk. One phext has an empty name: the
//! unnamed one, of requests that do not say which, in the file `.phext`.

use std::fmt;
use std::path::{Component, Path};

use crate::limits::PHEXT_NAME_BYTES;

/// A phext's name: up to 240 bytes, no slash or backslash, no control character, no leading dot. That of a phext in a
/// folder, which no client can say, has the folder and a slash before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhextName(String);

/// Why a text is not a phext's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPhextName {
    /// More than 240 bytes.
    #[error("the phext's name is longer than {PHEXT_NAME_BYTES} bytes")]
    TooLong,
    /// A leading dot: such files are hidden, and are ours for other ends.
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
    /// Checks a name as the client gave it, percent-decoded. Without one it is the unnamed phext's, as in SQ.
    ///
    /// # Errors
    /// Says which rule the name breaks.
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
        Ok(Self(text.to_owned()))
    }

    /// The name of the phext in a folder of the tenant's directory; `None` when the folder's path does not stay below that,
    /// is no UTF-8, or has control characters. Clients reach such a phext by the name of a link to it.
    #[must_use]
    pub fn in_folder(&self, folder: &Path) -> Option<Self> {
        let mut path = String::new();
        for component in folder.components() {
            let Component::Normal(name) = component else { return None };
            path.push_str(name.to_str().filter(|name| !name.chars().any(char::is_control))?);
            path.push('/');
        }
        path.push_str(&self.0);
        Some(Self(path))
    }

    /// Whether it is the name of a phext in a folder.
    pub fn is_in_folder(&self) -> bool {
        self.0.contains('/')
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PhextName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
        let within = notes.in_folder(Path::new("years/2026")).unwrap();
        assert_eq!((within.as_str(), within.is_in_folder()), ("years/2026/notes", true));
        for outside in ["/years", "..", "years/../..", "./years", "a\nb"] {
            assert_eq!(notes.in_folder(Path::new(outside)), None);
        }
        for fine in ["a", "a..b", "a.phext", "ä 1", "\u{1f506}", "-", "~"] {
            assert!(PhextName::parse(fine).is_ok(), "{fine:?} was refused");
        }
    }
}
