//! Every file operation of the store: the one place where a disk can fail.
//!
//! The store names files by purpose, never by path. [`os`] is the real disk; tests use one in memory that loses what was
//! not synced.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use sq_shared::layout;
use sq_shared::phext_name::PhextName;

use crate::store::links::Followed;

pub(super) mod absent;
pub(super) mod os;
#[cfg(test)]
pub(super) mod sim;
#[cfg(test)]
mod tests;

/// A file of a tenant's directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum FileName {
    /// The text of a phext, which people read and edit.
    Phext(PhextName),
    /// The new text, until it is renamed.
    NewPhext(PhextName),
    /// The writes that are not yet in the text.
    Journal(PhextName),
    /// The new journal, until it is renamed.
    NewJournal(PhextName),
    /// The retired idempotency keys.
    Keys,
    /// The new keys, until they are renamed.
    NewKeys,
    /// Space that is kept for a full disk.
    Reserve,
}

/// A tenant's directory, locked for as long as this lives.
pub(super) trait Disk: Debug + Send + Sync {
    /// The identity of a file; `None` when there is none.
    fn identity(&self, file: &FileName) -> io::Result<Option<Identity>>;
    /// Where a phext's link leads. Only the name that this gives may be one in a folder.
    fn follow(&self, name: &PhextName) -> io::Result<Followed>;
    /// Opens a plain file for reading and writing, not through a link; `None` when there is none.
    fn open(&self, file: &FileName) -> io::Result<Option<Box<dyn DiskFile>>>;
    /// Creates an empty file. A plain file of this name is replaced, not truncated: a program that has it open keeps it.
    /// The name is durable after [`Disk::sync_name`].
    fn create(&self, file: &FileName) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file within its folder, and replaces the other one. Durable after [`Disk::sync_name`].
    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()>;
    /// Removes a file, if there is one.
    fn remove(&self, file: &FileName) -> io::Result<()>;
    /// Whether the directory itself has been removed. Then it is empty, and nothing can be created in it.
    fn is_removed(&self) -> io::Result<bool>;
    /// Makes the names in the directory durable, but not those in folders.
    fn sync_directory(&self) -> io::Result<()>;
    /// Makes the name of one file durable, and those of its folders.
    fn sync_name(&self, file: &FileName) -> io::Result<()>;
    fn free_bytes(&self) -> io::Result<u64>;
    /// Calls `found` with the name of every file, in no order; [`file_of`] says which ones are the store's. Files that are
    /// created or removed meanwhile may be missing.
    fn visit(&self, found: &mut dyn FnMut(&OsStr)) -> io::Result<()>;
}

/// An open file.
pub(super) trait DiskFile: Debug + Send + Sync {
    fn identity(&self) -> io::Result<Identity>;
    /// Whether it could be opened for writing.
    fn is_writable(&self) -> bool;
    /// Reads some bytes from an offset on; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Truncates the file, or extends it with zeros.
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;
    /// Allocates space for so many bytes, and extends a shorter file with zeros. Not every file system can.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Makes the bytes durable, and the length that is needed to read them (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Makes all of the file durable (`fsync`).
    fn sync_all(&self) -> io::Result<()>;
}

/// Tells two states of a file apart without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) inode: u64,
    pub(super) modified_s: i64,
    pub(super) modified_ns: i64,
    /// The ctime: unlike the mtime, no program can set it back.
    pub(super) changed_s: i64,
    pub(super) changed_ns: i64,
    pub(super) bytes: u64,
    /// Whether it is a plain file: no link, folder or device.
    pub(super) is_file: bool,
}

impl Identity {
    /// Whether this is that file with the same contents under any name: a rename changes the ctime and nothing else.
    pub(super) fn is_renamed(&self, other: &Self) -> bool {
        let (changed_s, changed_ns) = (other.changed_s, other.changed_ns);
        Self { changed_s, changed_ns, ..*self } == *other
    }
}

/// Whether an error says that this process may not change a file: it is read-only, immutable, or on a read-only file
/// system.
pub(super) fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Whether an error says that a name is taken by something that cannot be replaced, such as a folder or a mount point.
fn is_name_taken(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory, ResourceBusy};
    let kind = error.kind();
    // A folder in the path is a mount point, or is missing.
    matches!(
        kind,
        io::ErrorKind::CrossesDevices
            | AlreadyExists
            | DirectoryNotEmpty
            | IsADirectory
            | NotADirectory
            | ResourceBusy
    )
}

/// Whether an error leaves everything as it was: the file cannot be created, filled, renamed or removed now.
pub(super) fn is_harmless(error: &io::Error) -> bool {
    is_full(error) || is_unwritable(error) || is_name_taken(error)
}

/// The path of a file, relative to the directory.
pub(super) fn path_of(file: &FileName) -> PathBuf {
    let here = Path::new("");
    match file {
        FileName::Phext(name) => layout::phext_file(here, name),
        FileName::NewPhext(name) => layout::temporary(&layout::phext_file(here, name)),
        FileName::Journal(name) => layout::journal_file(here, name),
        FileName::NewJournal(name) => layout::temporary(&layout::journal_file(here, name)),
        FileName::Keys => layout::remembered_keys_file(here),
        FileName::NewKeys => layout::temporary(&layout::remembered_keys_file(here)),
        FileName::Reserve => layout::reserve_file(here),
    }
}

impl FileName {
    /// The phext that it belongs to; `None` for files of the whole directory.
    pub(super) fn phext(&self) -> Option<&PhextName> {
        match self {
            Self::Phext(name) | Self::NewPhext(name) | Self::Journal(name) | Self::NewJournal(name) => {
                Some(name)
            }
            Self::Keys | Self::NewKeys | Self::Reserve => None,
        }
    }

    /// Whether it is a temporary file. A new worker removes those that are left.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self, Self::NewPhext(_) | Self::NewJournal(_) | Self::NewKeys)
    }
}

/// The file with this name in the directory; `None` when it is not the store's.
pub(super) fn file_of(name: &OsStr) -> Option<FileName> {
    let phext = |name: &OsStr| layout::phext_of_file(name);
    let journal = |name: &OsStr| layout::phext_of_journal(name);
    let file = match layout::finished(name) {
        Some(finished) => {
            phext(finished).map(FileName::NewPhext).or_else(|| journal(finished).map(FileName::NewJournal))
        }
        None => phext(name).map(FileName::Phext).or_else(|| journal(name).map(FileName::Journal)),
    };
    let of_all = [FileName::Keys, FileName::NewKeys, FileName::Reserve];
    file.or_else(|| of_all.into_iter().find(|file| path_of(file).as_os_str() == name))
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
