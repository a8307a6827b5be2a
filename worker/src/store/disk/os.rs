//! The real disk: a directory that one worker has locked, and its files.
//!
//! Every file is opened relative to the open directory, never by the directory's path: the worker writes to the directory
//! that it has locked, even if another one has been put in its place.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, FallocateFlags, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;
use sq_shared::file_error;
use sq_shared::file_id::FileId;
use sq_shared::phext_name::PhextName;
use sq_shared::process::service_user;

use super::{Disk, DiskFile, FileName, Identity, file_of, is_harmless, is_unwritable, path_of};
use crate::store::links::{BadLink, Followed};
use folders::{NO_FOLDER, Place, name_of};

mod folders;
mod links;
#[cfg(test)]
mod tests;

/// The user that a confined worker sees instead of every user but its own (user_namespaces(7)).
const OVERFLOW_USER: u32 = 65534;

/// How often the lock is tried, a millisecond apart, while only `fsck` has it.
const LOCK_ATTEMPTS: u32 = 1000;

/// A tenant's directory.
#[derive(Debug)]
pub(in crate::store) struct OsDisk {
    /// Holds the lock. All names are resolved in it.
    directory: File,
    access: Access,
    /// The paths by which an absolute link may name the directory: as given, and without links.
    own_paths: Vec<PathBuf>,
}

/// A tenant's directory that is open but not locked.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    own_paths: Vec<PathBuf>,
    directory: File,
}

/// What a disk was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// By a worker, which has the lock.
    Serve,
    /// Beside a worker, to read only.
    Inspect,
}

#[derive(Debug)]
struct OsFile {
    file: File,
    /// Its name when it was opened, for errors.
    name: PathBuf,
    /// Why it could be opened only for reading.
    unwritable: Option<Errno>,
}

/// Why a directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another worker has it.
    #[error("{} is in use by another worker: only one may serve a directory; stop it, or give --data-dir another", .0.display())]
    InUse(PathBuf),
    /// It is not a directory, or the system refuses.
    #[error("cannot use the data directory {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl DataDirectory {
    /// Creates the directory if it is missing, and opens it.
    ///
    /// # Errors
    /// It is not a directory, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let made = make_if_missing(path).map_err(|error| file_error::explained(path, error));
        made.map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        Self::open_existing(path)
    }

    /// Opens the directory, and never creates it.
    ///
    /// # Errors
    /// It is missing or not a directory, or the system refuses.
    pub fn open_existing(path: &Path) -> Result<Self, OpenError> {
        let opened = open_directory(CWD, path).and_then(|directory| {
            service_user::refuse_foreign(path, &directory)?;
            Ok(directory)
        });
        let explained = opened.map_err(|error| file_error::explained(path, error));
        let directory = explained.map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), own_paths: own_paths(path), directory })
    }

    /// Which directory it is.
    ///
    /// # Errors
    /// The system's error.
    pub fn id(&self) -> io::Result<FileId> {
        Ok(FileId::from_metadata(&self.directory.metadata()?))
    }
}

impl OpenError {
    /// Whether there is no directory at this path.
    pub fn is_missing(&self) -> bool {
        use io::ErrorKind::{NotADirectory, NotFound};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), NotFound | NotADirectory))
    }
}

impl AsFd for DataDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl OsDisk {
    /// Locks the directory, and removes the temporary files of a killed worker.
    pub(in crate::store) fn lock(directory: DataDirectory) -> Result<Self, OpenError> {
        let DataDirectory { path, own_paths, directory } = directory;
        let wrap = |source| OpenError::Io { path: path.clone(), source };
        if !lock(&directory).map_err(wrap)? {
            return Err(OpenError::InUse(path));
        }
        let disk = Self { directory, access: Access::Serve, own_paths };
        disk.remove_leftovers().map_err(wrap)?;
        // If an earlier worker was killed or failed between a rename and this sync, what it renamed is served from now on
        // as if it were acknowledged.
        match disk.directory.sync_all() {
            Err(error) if is_unwritable(&error) => {
                tracing::warn!(%error, "the file system is read-only; reads are served, and writes are refused");
            }
            synced => synced.map_err(wrap)?,
        }
        Ok(disk)
    }

    /// Opens a directory for reading only. A worker may be serving it; it is not created if it is missing.
    pub(in crate::store) fn inspect(path: &Path) -> Result<Self, OpenError> {
        let opened = open_directory(CWD, path).map_err(|error| file_error::explained(path, error));
        let directory = opened.map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        Ok(Self { directory, access: Access::Inspect, own_paths: own_paths(path) })
    }

    /// Whether a worker has the directory locked.
    pub(in crate::store) fn is_in_use(&self) -> io::Result<bool> {
        // Through a separate descriptor, because a new lock replaces the one that a descriptor has. The shared lock ends
        // with it at once; a worker that starts meanwhile tries again (see `lock`).
        let probe = open_directory(&self.directory, Path::new("."))?;
        is_taken(probe.try_lock_shared())
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        let mut leftovers = Vec::new();
        self.visit(&mut |name| leftovers.extend(file_of(name).filter(FileName::is_temporary)))?;
        for file in leftovers {
            if !self.identity(&file)?.is_some_and(|identity| identity.is_file) {
                continue;
            }
            match self.remove(&file) {
                // It blocks only its own phext.
                Err(error) if is_harmless(&error) => {
                    tracing::warn!(file = %path_of(&file).display(), %error, "failed to remove a temporary file");
                }
                removed => removed?,
            }
        }
        Ok(())
    }

    fn open_with(&self, file: &FileName, flags: OFlags) -> rustix::io::Result<File> {
        // Not through a link, which could lead out of the directory; and without waiting for the other end of a pipe.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let place = self.place_of(file)?;
        let opened = rustix::fs::openat(&place, &place.name, flags, Mode::RUSR | Mode::WUSR);
        opened.map(File::from).map_err(|error| place.explained(error))
    }

    /// Adds the file's name to an error, and its owner when access is denied: log lines have no other name of it, and a
    /// confined worker cannot look up the names of users.
    fn named(&self, file: &FileName, error: impl Into<io::Error>) -> io::Error {
        self.named_path(&path_of(file), error.into())
    }

    fn named_path(&self, path: &Path, error: io::Error) -> io::Error {
        let of_file = || statx_of(&self.directory, path, AtFlags::SYMLINK_NOFOLLOW);
        named(path, error, || {
            // If it cannot be created or reached, its folder denies that.
            let folder = path.parent().unwrap_or(Path::new(""));
            of_file().or_else(|_| statx_of(&self.directory, folder, AtFlags::EMPTY_PATH))
        })
    }

    /// If a file is missing, the whole directory may have been removed: then the phext must not be taken for one without a
    /// file.
    fn found<T>(&self, result: rustix::io::Result<T>) -> io::Result<Option<T>> {
        let found = some_if_found(result)?;
        if found.is_none() && self.is_removed()? {
            return Err(removed());
        }
        Ok(found)
    }

    fn check_access(&self) -> io::Result<()> {
        match self.access {
            Access::Serve => Ok(()),
            Access::Inspect => Err(Errno::ROFS.into()),
        }
    }
}

impl Disk for OsDisk {
    fn identity(&self, file: &FileName) -> io::Result<Option<Identity>> {
        let look = |place: Place<'_>| identity_of(&place, &place.name, AtFlags::SYMLINK_NOFOLLOW);
        self.found(self.place_of(file).and_then(look)).map_err(|error| self.named(file, error))
    }

    fn follow(&self, name: &PhextName) -> io::Result<Followed> {
        let (file, mut passed) = (path_of(&FileName::Phext(name.clone())), Vec::new());
        let end = links::follow(&self.directory, &self.own_paths, &file, &mut passed);
        let end = match end.map_err(|(path, error)| self.named_path(&path, error.into()))? {
            links::LinkEnd::Within(_) if passed.is_empty() => return Ok(Followed::NoLink),
            links::LinkEnd::Within(end) => end,
            links::LinkEnd::Outside => return Ok(Followed::Refused(BadLink::Outside)),
            links::LinkEnd::Nowhere => return Ok(Followed::Refused(BadLink::NoPhext)),
        };
        self.follow_to(&end, &passed)
    }

    fn open(&self, file: &FileName) -> io::Result<Option<Box<dyn DiskFile>>> {
        let writable = match self.access {
            Access::Serve => self.open_with(file, OFlags::RDWR),
            Access::Inspect => Err(Errno::ROFS),
        };
        let (opened, unwritable) = match writable {
            // Another user's file, an immutable one, or a read-only file system.
            Err(reason @ (Errno::ACCESS | Errno::PERM | Errno::ROFS)) => {
                (self.open_with(file, OFlags::RDONLY), Some(reason))
            }
            opened => (opened, None),
        };
        let opened = self.found(opened).map_err(|error| self.named(file, error))?;
        Ok(opened.map(|opened| boxed(opened, path_of(file), unwritable)))
    }

    fn create(&self, file: &FileName) -> io::Result<Box<dyn DiskFile>> {
        self.check_access()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let made = match self.open_with(file, flags) {
            // A new file instead of a truncated one: a program that reads the old one can go on, and a power cut leaves the
            // old one or the new one.
            Err(Errno::EXIST) if self.identity(file)?.is_some_and(|identity| identity.is_file) => {
                self.remove(file)?;
                self.open_with(file, flags)
            }
            made => made,
        };
        made.map(|made| boxed(made, path_of(file), None)).map_err(|error| self.named(file, error))
    }

    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        self.check_access()?;
        let rename = |place: Place<'_>| {
            let renamed = rustix::fs::renameat(&place, name_of(from), &place, &place.name);
            renamed.map_err(|error| place.explained(error))
        };
        let renamed = self.place_of(to).and_then(rename);
        renamed.map_err(|error| self.named(to, error))
    }

    fn remove(&self, file: &FileName) -> io::Result<()> {
        self.check_access()?;
        let remove = |place: Place<'_>| rustix::fs::unlinkat(&place, &place.name, AtFlags::empty());
        some_if_found(self.place_of(file).and_then(remove))
            .map(|_| ())
            .map_err(|error| self.named(file, error))
    }

    fn is_removed(&self) -> io::Result<bool> {
        let found = rustix::fs::statx(&self.directory, "", AtFlags::EMPTY_PATH, StatxFlags::NLINK)?;
        Ok(found.stx_nlink == 0)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.check_access()?;
        self.directory.sync_all().map_err(directory_error)
    }

    fn sync_name(&self, file: &FileName) -> io::Result<()> {
        self.check_access()?;
        self.sync_folders(file).map_err(directory_error)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let room = rustix::fs::fstatvfs(&self.directory).map_err(|error| directory_error(error.into()))?;
        Ok(room.f_bavail.saturating_mul(room.f_frsize))
    }

    fn visit(&self, found: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        for entry in Dir::read_from(&self.directory).map_err(|error| directory_error(error.into()))? {
            let entry = entry.map_err(|error| directory_error(error.into()))?;
            found(OsStr::from_bytes(entry.file_name().to_bytes()));
        }
        if self.is_removed()? { Err(removed()) } else { Ok(()) }
    }
}

impl OsFile {
    fn check_writable(&self) -> io::Result<()> {
        self.unwritable.map_or(Ok(()), |reason| Err(self.named(reason.into())))
    }

    fn named(&self, error: io::Error) -> io::Error {
        named(&self.name, error, || statx_of(&self.file, Path::new(""), AtFlags::EMPTY_PATH))
    }
}

impl DiskFile for OsFile {
    fn identity(&self) -> io::Result<Identity> {
        identity_of(&self.file, Path::new(""), AtFlags::EMPTY_PATH).map_err(|error| self.named(error.into()))
    }

    fn is_writable(&self) -> bool {
        self.unwritable.is_none()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset).map_err(|error| self.named(error))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        self.file.write_all_at(bytes, offset).map_err(|error| self.named(error))
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        self.file.set_len(bytes).map_err(|error| self.named(error))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        if bytes == 0 {
            // The kernel refuses 0.
            return Ok(());
        }
        let allocate = || rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes);
        rustix::io::retry_on_intr(allocate).map_err(|error| self.named(error.into()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|error| self.named(error))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all().map_err(|error| self.named(error))
    }
}

fn removed() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the directory has been removed")
}

/// The same error with the file's name, and with its owner and mode when access is denied.
fn named(path: &Path, error: io::Error, found: impl FnOnce() -> rustix::io::Result<Statx>) -> io::Error {
    let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
    let whose = found().ok().filter(|_| is_denied).map(|found| {
        let mode = found.stx_mode & 0o7777;
        match found.stx_uid {
            OVERFLOW_USER => {
                format!("; it belongs to another user, mode {mode:04o} (`sq-worker fsck` says which)")
            }
            owner => format!("; it belongs to user {owner}, mode {mode:04o}"),
        }
    });
    let path = path.display();
    io::Error::new(error.kind(), format!("{path}: {error}{}", whose.unwrap_or_default()))
}

fn directory_error(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the directory itself: {error}"))
}

fn boxed(file: File, name: PathBuf, unwritable: Option<Errno>) -> Box<dyn DiskFile> {
    Box::new(OsFile { file, name, unwritable })
}

fn statx_of(directory: impl AsFd, path: &Path, flags: AtFlags) -> rustix::io::Result<Statx> {
    rustix::fs::statx(directory, path, flags, StatxFlags::UID | StatxFlags::MODE)
}

fn identity_of(directory: impl AsFd, path: &Path, flags: AtFlags) -> rustix::io::Result<Identity> {
    let wanted =
        StatxFlags::TYPE | StatxFlags::INO | StatxFlags::SIZE | StatxFlags::MTIME | StatxFlags::CTIME;
    let found = rustix::fs::statx(directory, path, flags, wanted)?;
    Ok(Identity {
        inode: found.stx_ino,
        modified_s: found.stx_mtime.tv_sec,
        modified_ns: found.stx_mtime.tv_nsec.into(),
        changed_s: found.stx_ctime.tv_sec,
        changed_ns: found.stx_ctime.tv_nsec.into(),
        bytes: found.stx_size,
        is_file: FileType::from_raw_mode(found.stx_mode.into()) == FileType::RegularFile,
    })
}

fn some_if_found<T>(result: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | NO_FOLDER) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn open_directory(from: impl AsFd, path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(from, path, flags, Mode::empty())?.into())
}

fn own_paths(path: &Path) -> Vec<PathBuf> {
    [std::path::absolute(path), path.canonicalize()].into_iter().flatten().collect()
}

/// Locks a directory for as long as the descriptor is open. Gives false when another worker has the lock.
fn lock(directory: &File) -> io::Result<bool> {
    for _ in 0..LOCK_ATTEMPTS {
        if !is_taken(directory.try_lock())? {
            return Ok(true);
        }
        // A worker's lock excludes shared locks too. If one is granted, the lock was that of `fsck`, which has it only for
        // a moment.
        if is_taken(directory.try_lock_shared())? {
            return Ok(false);
        }
        directory.unlock()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(false)
}

fn is_taken(attempt: Result<(), TryLockError>) -> io::Result<bool> {
    match attempt {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// What root creates in another user's folder is created as that user.
fn make_if_missing(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    service_user::as_owner_of(path, || make_directory(path)).flatten()
}

/// Creates the directory and its missing parents. Each parent is synced, so that a power cut removes none of them.
fn make_directory(path: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
