//! Identifies a file or a directory, whatever its path.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// The device and the number on it. It is not reused while the file exists or is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl FileId {
    /// Not the id of any file.
    pub const NONE: Self = Self { device: 0, inode: 0 };

    /// The id of a file, from its metadata.
    pub fn from_metadata(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}
