//! One check of a tenant's directory. It may block as long as the disk does.

use std::io;
use std::path::{Path, PathBuf};

use sq_shared::data_root::{DataRoot, Place, directory_id_at};
use sq_shared::file_id::FileId;

use super::desired::Assignment;
use super::observed::DirectoryState;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CheckResult {
    /// The same directory as before.
    Unchanged(FileId),
    /// The directory, or why there is none; and where its path leads if there is one.
    Found(Place, Option<Resolved>),
    Failed(io::ErrorKind, String),
}

/// Where a tenant's path leads when links are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    real: PathBuf,
    /// The folder that contains the path.
    folder: PathBuf,
}

impl CheckResult {
    /// Checks the directory, whose state was `known`, and creates a new tenant's.
    pub(crate) fn check(
        data_root: &DataRoot,
        assignment: &Assignment,
        known: Option<DirectoryState>,
    ) -> Self {
        let data_dir = &assignment.data_dir;
        let result = match (known, directory_id_at(data_dir)) {
            (Some(DirectoryState::Present(known)), Ok(id)) if id == known => Ok(Self::Unchanged(id)),
            (Some(DirectoryState::Present(_)), Err(error)) => Err(error),
            _ => match data_root.find_or_make(&assignment.tenant, data_dir) {
                Ok(there @ Place::There(_)) => {
                    Resolved::from_path(data_dir).map(|resolved| Self::Found(there, Some(resolved)))
                }
                found => found.map(|place| Self::Found(place, None)),
            },
        };
        result.unwrap_or_else(|error| Self::Failed(error.kind(), error.to_string()))
    }
}

impl Resolved {
    fn from_path(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.parent().unwrap_or(data_dir);
        Ok(Self { real: data_dir.canonicalize()?, folder: folder.canonicalize()? })
    }

    /// Whether this path leads to another tenant's directory, into it, or to a folder around it, by the names alone.
    pub(crate) fn overlaps(&self, own: &Path, theirs: &Path) -> bool {
        let beside = theirs.file_name().filter(|_| own.parent() == theirs.parent());
        let theirs = beside.map_or_else(|| theirs.to_owned(), |name| self.folder.join(name));
        let is_link = own.file_name().is_some_and(|name| self.real != self.folder.join(name));
        self.real.starts_with(&theirs) || (is_link && theirs.starts_with(&self.real))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_directories_are_detected_by_names_alone() {
        for (own, real, folder, theirs, overlaps) in [
            // Plain ones, beside each other and elsewhere.
            ("/data/alice", "/data/alice", "/data", "/data/bob", false),
            ("/data/alice", "/data/alice", "/data", "/data/alice-2", false),
            ("/data/alice", "/data/alice", "/data", "/mnt/bob", false),
            // The data root is behind a link.
            ("/data/alice", "/disk/alice", "/disk", "/data/bob", false),
            ("/data/alice", "/disk/bob", "/disk", "/data/bob", true),
            // Links to a tenant's directory, into it, around it.
            ("/data/alice", "/data/bob", "/data", "/data/bob", true),
            ("/data/alice", "/mnt/bob", "/data", "/mnt/bob", true),
            ("/data/alice", "/data/bob/years", "/data", "/data/bob", true),
            ("/data/alice", "/data", "/data", "/data/bob", true),
            ("/data/alice", "/elsewhere", "/data", "/data/bob", false),
            // A folder on the way was replaced.
            ("/mnt/bob", "/data/bob", "/data", "/data/bob", true),
            // The other's path is inside this one: the registry refuses that.
            ("/data/alice", "/data/alice", "/data", "/data/alice/link", false),
        ] {
            let resolved = Resolved { real: real.into(), folder: folder.into() };
            assert_eq!(
                resolved.overlaps(Path::new(own), Path::new(theirs)),
                overlaps,
                "{own} {real} {theirs}"
            );
        }
    }
}
