//! Every file operation of the store: the one seam where a disk can fail.
//!
//! The store knows files by what they are for, never by path. [`os`] is the real disk; the tests have one in
//! memory that loses what was not synced.

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
    /// The text that is about to take its place.
    NewPhext(PhextName),
    /// The writes that are not yet in the text.
    Journal(PhextName),
    /// The journal that is about to take its place.
    NewJournal(PhextName),
    /// The keys of phexts that have no journal.
    Keys,
    /// Those that are about to take their place.
    NewKeys,
    /// Room for the moment when the disk is full.
    Reserve,
}

/// A tenant's directory, locked for as long as this lives.
pub(super) trait Disk: Debug + Send + Sync {
    /// What the file is now; `None` when there is none.
    fn identity(&self, file: &FileName) -> io::Result<Option<Identity>>;
    /// Where the link leads that stands in the place of a phext's file. Only the name that this gives may be one in a folder.
    fn follow(&self, name: &PhextName) -> io::Result<Followed>;
    /// Opens a plain file to read and write it, not through a link; `None` when there is none.
    fn open(&self, file: &FileName) -> io::Result<Option<Box<dyn DiskFile>>>;
    /// Makes an empty file, in place of a plain one of this name; whoever has that one open keeps it. It is
    /// durable, and the old one's name is gone for good, after [`Disk::sync_name`].
    fn create(&self, file: &FileName) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another's name in the same folder; the other's file is gone. Durable after [`Disk::sync_name`].
    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()>;
    /// Removes a file; it is no error when there is none.
    fn remove(&self, file: &FileName) -> io::Result<()>;
    /// Whether the directory itself has been removed: it is empty then, and nothing can be made in it.
    fn is_removed(&self) -> io::Result<bool>;
    /// Makes the names of the directory durable, those in folders excepted.
    fn sync_directory(&self) -> io::Result<()>;
    /// Makes the name of one file durable, and those of the folders in which it is.
    fn sync_name(&self, file: &FileName) -> io::Result<()>;
    /// How many bytes of room there are for new files.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Calls `found` with the name of every file, in no order; [`file_of`] says which ones are the store's. Files that
    /// come or go meanwhile may be left out.
    fn visit(&self, found: &mut dyn FnMut(&OsStr)) -> io::Result<()>;
}

/// An open file.
pub(super) trait DiskFile: Debug + Send + Sync {
    /// What it is now.
    fn identity(&self) -> io::Result<Identity>;
    /// Whether it was opened for writing too.
    fn is_writable(&self) -> bool;
    /// Reads some bytes from an offset on; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes at an offset.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file off, or fills it up with zeros.
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;
    /// Takes room on the disk for so many bytes; a shorter file is filled up with zeros. Not every file system
    /// can.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Makes the bytes durable, and the length that it takes to read them (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Makes all of the file durable (`fsync`).
    fn sync_all(&self) -> io::Result<()>;
}

/// What tells two contents of a file apart without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) inode: u64,
    pub(super) modified_s: i64,
    pub(super) modified_ns: i64,
    /// When the kernel last saw a change: no program can set it back, as it can the time above.
    pub(super) changed_s: i64,
    pub(super) changed_ns: i64,
    /// How many bytes the file has.
    pub(super) bytes: u64,
    /// Whether it is neither a link nor a folder nor a device.
    pub(super) is_file: bool,
}

impl Identity {
    /// Whether this is that file with the same contents, as far as one can tell, under any name: a rename changes
    /// the time of change, and nothing else.
    pub(super) fn is_renamed(&self, other: &Self) -> bool {
        let (changed_s, changed_ns) = (other.changed_s, other.changed_ns);
        Self { changed_s, changed_ns, ..*self } == *other
    }
}

/// Whether an error says that this process may not change a file: it is read-only, immutable, or on a file system that
/// can only be read.
pub(super) fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Whether an error says that a name is taken by what does not give way: a folder, or a file on which another is mounted.
fn is_name_taken(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory, ResourceBusy};
    let kind = error.kind();
    // A folder on the way is another file system, or is not there.
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

/// Whether an error of a step that makes, fills, names or removes a file says no more than that this cannot be done now:
/// what was there before is as it was.
pub(super) fn is_harmless(error: &io::Error) -> bool {
    is_full(error) || is_unwritable(error) || is_name_taken(error)
}

/// The path of a file, from its directory.
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
    /// The phext that it belongs to; none for those of the whole directory.
    pub(super) fn phext(&self) -> Option<&PhextName> {
        match self {
            Self::Phext(name) | Self::NewPhext(name) | Self::Journal(name) | Self::NewJournal(name) => {
                Some(name)
            }
            Self::Keys | Self::NewKeys | Self::Reserve => None,
        }
    }

    /// Whether it is about to take another's place: without a worker at work it is left over.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self, Self::NewPhext(_) | Self::NewJournal(_) | Self::NewKeys)
    }
}

/// The file that has a name in the directory; `None` when it is not one of ours.
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

/// Whether an error says that there is no room left.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
