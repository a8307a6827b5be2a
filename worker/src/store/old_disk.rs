//! Every file operation of the store: the one seam where a disk can fail.
//!
//! A phext is replaced whole: the new file is written beside it, synced, renamed over it, and then the
//! directory is synced. At each moment the name stands for all of the old bytes or all of the new.

use std::cell::Cell;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sq_shared::layout;
use sq_shared::phext_name::PhextName;

use crate::store::disk::os::OpenError;

/// How many bytes go to the kernel at once.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// A tenant's directory, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// Holds the lock, and is what is synced after a rename.
    directory: File,
    /// A sync or a rename has failed: what the disk holds is known only after a new start.
    is_in_doubt: Cell<bool>,
    #[cfg(test)]
    pub(super) faults: faults::Faults,
}

/// What can fail while a phext is replaced, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Of the new file's bytes.
    Write,
    /// Of the new file.
    SyncFile,
    /// Over the old file.
    Rename,
    /// So that the rename lasts.
    SyncDirectory,
}

/// What tells two contents of a file apart without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    inode: u64,
    modified_s: i64,
    modified_ns: i64,
    /// When the kernel last saw a change: no program can set it back, as it can the time above.
    changed_s: i64,
    changed_ns: i64,
    /// How many bytes the file has.
    pub(super) bytes: u64,
    is_file: bool,
}

impl Disk {
    /// Makes the directory when it is missing, locks it, and removes what a killed worker left half written.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let wrap = |source| OpenError::Io { path: path.to_owned(), source };
        make_directory(path).map_err(wrap)?;
        let directory = File::open(path).map_err(wrap)?;
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(wrap(source)),
        }
        let disk = Self {
            path: path.to_owned(),
            directory,
            is_in_doubt: Cell::new(false),
            #[cfg(test)]
            faults: faults::Faults::default(),
        };
        disk.remove_temporaries().map_err(wrap)?;
        // A worker that was killed, or failed, between a rename and this sync: what it left is now served as
        // if it were acknowledged.
        disk.directory.sync_all().map_err(wrap)?;
        Ok(disk)
    }

    fn remove_temporaries(&self) -> io::Result<()> {
        for entry in self.path.read_dir()? {
            let entry = entry?;
            let path = entry.path();
            let finished = path.with_extension("");
            let is_ours = finished.file_name().and_then(layout::phext_of_file).is_some();
            if is_ours && layout::temporary(&finished) == path && entry.file_type()?.is_file() {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// What the file is now; `None` when there is none.
    pub(super) fn identity(&self, name: &PhextName) -> io::Result<Option<Identity>> {
        match layout::phext_file(&self.path, name).symlink_metadata() {
            Ok(metadata) => Ok(Some(Identity::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes of a plain file, and what it was when they were read; `None` when there is none.
    pub(super) fn read(&self, name: &PhextName) -> io::Result<Option<(Identity, Vec<u8>)>> {
        // Not through a link, which could lead out of the directory; and a pipe does not make us wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let path = layout::phext_file(&self.path, name);
        let mut file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Before the bytes: when someone writes meanwhile, the next look sees a change and reads again.
        let identity = Identity::of(&file.metadata()?);
        let mut bytes = Vec::with_capacity(usize::try_from(identity.bytes).unwrap_or(0));
        file.read_to_end(&mut bytes)?;
        Ok(Some((identity, bytes)))
    }

    /// Puts a new file in place of the phext's, durably.
    ///
    /// After a failed sync the kernel takes the pages for clean, so a second one would lie; after a failed
    /// rename nobody knows which file the name stands for. From then on the disk is in doubt.
    pub(super) fn replace(
        &self,
        name: &PhextName,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> io::Result<Identity> {
        let path = layout::phext_file(&self.path, name);
        let temporary = layout::temporary(&path);
        let replaced = self.write_synced(&temporary, write).and_then(|file| {
            let written = Identity::of(&file.metadata()?);
            self.perform(Operation::Rename, || std::fs::rename(&temporary, &path))?;
            Ok((file, written))
        });
        if replaced.is_err() {
            // It may not even exist; the error that counts is the first one.
            let _ = std::fs::remove_file(&temporary);
        }
        let (file, written) = replaced?;
        self.perform(Operation::SyncDirectory, || self.directory.sync_all())?;
        // The rename has changed the time of change; were anything else new, it would not be our file's.
        let renamed = Identity::of(&file.metadata()?);
        Ok(Identity { changed_s: renamed.changed_s, changed_ns: renamed.changed_ns, ..written })
    }

    /// The new file, complete and synced.
    fn write_synced(
        &self,
        path: &Path,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
        let mut buffered = BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
        self.perform(Operation::Write, || write(&mut buffered).and_then(|()| buffered.flush()))?;
        let file = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
        self.perform(Operation::SyncFile, || file.sync_all())?;
        Ok(file)
    }

    /// Whether the store must be opened anew before anything in it may be answered.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.is_in_doubt.get()
    }

    fn perform(&self, operation: Operation, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        #[cfg(test)]
        let act = || self.faults.strike(operation).and_then(|()| act());
        act().inspect_err(|error| {
            // What a full disk did not take is thrown away with the new file; the old one stands.
            let is_doubtful = match operation {
                Operation::Write => false,
                Operation::SyncFile | Operation::Rename => !is_full(error),
                Operation::SyncDirectory => true,
            };
            if is_doubtful {
                self.is_in_doubt.set(true);
            }
        })
    }

    /// Every phext and the bytes of its file, in no order.
    pub(super) fn list(&self) -> io::Result<Vec<(PhextName, u64)>> {
        let mut found = Vec::new();
        for entry in self.path.read_dir()? {
            let entry = entry?;
            let Some(name) = layout::phext_of_file(&entry.file_name()) else { continue };
            // Someone may remove a file between the listing and the look.
            if let Some(identity) = self.identity(&name)? {
                found.push((name, identity.bytes));
            }
        }
        Ok(found)
    }
}

/// Makes the directory and what is missing above it, so that a power cut takes none of them back: a new
/// entry is only durable once the directory that it stands in is synced.
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

impl Identity {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
            changed_s: metadata.ctime(),
            changed_ns: metadata.ctime_nsec(),
            bytes: metadata.len(),
            is_file: metadata.is_file(),
        }
    }

    /// Whether it is neither a link nor a folder nor a device.
    pub(super) fn is_file(&self) -> bool {
        self.is_file
    }
}

/// Whether an error says that there is no room left.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
pub(super) mod faults {
    //! A disk that fails when it is told to.

    use super::{Cell, Operation, io};

    /// The operation that fails each time, and how.
    #[derive(Debug, Default)]
    pub(crate) struct Faults(pub(crate) Cell<Option<(Operation, rustix::io::Errno)>>);

    impl Faults {
        pub(super) fn strike(&self, operation: Operation) -> io::Result<()> {
            match self.0.get() {
                Some((failing, error)) if failing == operation => Err(error.into()),
                _ => Ok(()),
            }
        }
    }
}
