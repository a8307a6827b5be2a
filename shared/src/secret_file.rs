//! Files that only their owner may read, and directories that only their owner may enter: written so that a
//! power cut leaves the old content or the new, and a full disk the old one. None is written through a link.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file_lock::lock_within;
use crate::{file_error, layout, regular_file};

/// How long a command waits for another one that adds to the same file.
const APPEND_PATIENCE: Duration = Duration::from_secs(30);

/// The longest line that a file is looked through for from its end on.
const LINE_BYTES: u64 = 8 << 10;

/// A file of mode 0600 that is written and synced, and not yet in the place of another. Dropped, it is gone again. A link
/// stays what it is: what it leads to is replaced.
#[derive(Debug)]
pub struct Replacement {
    /// `None` once it is renamed.
    temporary: Option<PathBuf>,
    target: PathBuf,
}

/// Why a file is not, or may not be, in the place of another.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// What was there is there still.
    #[error("{0}")]
    NotReplaced(io::Error),
    /// It is replaced, and a power cut may take that back.
    #[error("it is written, but may be lost in a power cut: its folder cannot be synced: {0}")]
    NotSynced(io::Error),
}

impl From<PublishError> for io::Error {
    fn from(error: PublishError) -> Self {
        let (PublishError::NotReplaced(cause) | PublishError::NotSynced(cause)) = &error;
        Self::new(cause.kind(), error.to_string())
    }
}

impl Replacement {
    /// Writes what is to take the place of a file, beside it.
    ///
    /// # Errors
    /// The folder cannot be written to, or has no room; or the file cannot be replaced. Nothing is left behind then.
    pub fn write(path: &Path, content: &[u8]) -> io::Result<Self> {
        let target = regular_file::target_of(path)?;
        regular_file::check_replaceable(&target)?;
        let temporary = layout::temporary(&target);
        let named = |error| file_error::named(&temporary, error);
        let mut file = regular_file::create_new(&temporary).map_err(named)?;
        // From here on, dropped, it goes.
        let replacement = Self { temporary: Some(temporary.clone()), target };
        file.write_all(content).and_then(|()| file.sync_all()).map_err(named)?;
        Ok(replacement)
    }

    /// Renames it, and waits until that is on disk.
    ///
    /// # Errors
    /// It cannot be renamed, or that cannot be synced.
    pub fn publish(mut self) -> Result<(), PublishError> {
        if let Some(temporary) = &self.temporary {
            std::fs::rename(temporary, &self.target).map_err(PublishError::NotReplaced)?;
        }
        self.temporary = None;
        sync_folder_of(&self.target).map_err(PublishError::NotSynced)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // One that cannot be removed is replaced by the next.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Lines that were added to a file, and are on disk.
#[derive(Debug)]
pub struct Appended {
    file: File,
    path: PathBuf,
    /// How long the file was before, and is now; it was made for them when this began with nothing.
    before: u64,
    after: u64,
    is_new: bool,
}

/// What a file ends with, behind its last line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// A whole line, which only lacks the line break.
    Line,
    /// The beginning of one, left by a program that was stopped while it wrote.
    Torn,
    /// Something else, which is not ours to cut off.
    Foreign,
}

/// What is to be added to a file of lines.
pub struct Lines<'l> {
    /// The first line of a file that is empty.
    pub head: &'l [u8],
    /// The lines, each with a line break at its end.
    pub lines: &'l [u8],
    /// Says what the bytes behind the last line break are.
    pub tail: fn(&[u8]) -> Tail,
}

/// Adds whole lines to a file, all or none, and waits until they are on disk. The file is made with mode 0600 when it is
/// missing, and made so when it was not. `check` sees it before anything is done to it.
///
/// # Errors
/// The file cannot be written, has no room, or `check` fails. It is as it was then.
pub fn append(path: &Path, lines: &Lines, check: impl Fn(&File) -> io::Result<()>) -> io::Result<Appended> {
    let is_new = !path.exists();
    let file = open_locked(path, check)?;
    let before = file.metadata()?.len();
    let mut appended = Appended { file, path: path.to_owned(), before, after: before, is_new };
    let written = appended.write(lines);
    match written {
        Ok(()) => Ok(appended),
        Err(error) => {
            appended.after = appended.file.metadata()?.len();
            appended.take_back()?;
            Err(error)
        }
    }
}

/// Opens a file to add to it, and locks it. One that was removed while its lock was waited for takes no more lines.
fn open_locked(path: &Path, check: impl Fn(&File) -> io::Result<()>) -> io::Result<File> {
    loop {
        let file = regular_file::open_append(path)?;
        check(&file)?;
        lock_within(&file, APPEND_PATIENCE).map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another process is adding to it"),
            TryLockError::Error(error) => error,
        })?;
        let (opened, named) = (file.metadata()?, path.symlink_metadata());
        if named.is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino())) {
            return Ok(file);
        }
    }
}

impl Appended {
    fn write(&mut self, lines: &Lines) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(0o600))?;
        let tail = self.tail()?;
        let mut text = Vec::new();
        match (lines.tail)(&tail) {
            _ if self.before == 0 => text.extend(lines.head),
            _ if tail.is_empty() => {}
            Tail::Line => text.push(b'\n'),
            Tail::Torn => {
                self.before -= tail.len() as u64;
                self.file.set_len(self.before)?;
            }
            Tail::Foreign => {
                return Err(io::Error::other(
                    "its last line has no end, and is not one of these: end it with a line break, or name another file",
                ));
            }
        }
        text.extend(lines.lines);
        (&self.file).write_all(&text)?;
        self.file.sync_all()?;
        sync_folder_of(&self.path)?;
        self.after = self.before + text.len() as u64;
        Ok(())
    }

    /// What is behind the last line break. After a power cut that may be zeros, of a length that came to disk before
    /// the bytes.
    fn tail(&self) -> io::Result<Vec<u8>> {
        let from = self.before.saturating_sub(LINE_BYTES);
        let mut end = vec![0; usize::try_from(self.before - from).unwrap_or_default()];
        self.file.read_exact_at(&mut end, from)?;
        let tail = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Ok(end.split_off(tail))
    }

    /// Makes the file what it was before: for lines that are not true after all. Gives false, and leaves them, when an
    /// editor has changed the file meanwhile.
    ///
    /// # Errors
    /// It cannot be cut off. The lines stay then.
    pub fn take_back(self) -> io::Result<bool> {
        if self.file.metadata()?.len() != self.after {
            return Ok(false);
        }
        if self.is_new && self.before == 0 {
            std::fs::remove_file(&self.path)?;
            sync_folder_of(&self.path)?;
        } else {
            self.file.set_len(self.before)?;
            self.file.sync_all()?;
        }
        Ok(true)
    }
}

/// Makes a directory that only its owner may enter, and those above it that are missing.
///
/// # Errors
/// It cannot be made.
pub fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Waits until a directory's entries are on disk.
///
/// # Errors
/// It cannot be opened or synced.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync_dir(folder.unwrap_or(Path::new(".")))
}
