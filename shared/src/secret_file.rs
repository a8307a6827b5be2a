//! Files that only their owner may read, and directories that only their owner may enter. After a power cut a file
//! has its old content or the new; on a full disk it keeps the old. None is written through a link.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file_id::FileId;
use crate::file_lock::lock_within;
use crate::{file_error, layout, regular_file};

/// How long a command waits for another one that appends to the same file.
const APPEND_PATIENCE: Duration = Duration::from_secs(30);

/// How far from its end a file is searched for the last line break.
const LINE_BYTES: u64 = 8 << 10;

/// A file of mode 0600 that is written and synced, and has not replaced its target yet. It is removed when this is
/// dropped. A target that is a link stays one: the file that it leads to is replaced.
#[derive(Debug)]
pub struct Replacement {
    /// `None` once it is renamed.
    temporary: Option<PathBuf>,
    target: PathBuf,
}

/// Why a file was not replaced, or may not stay replaced.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The old file is unchanged.
    #[error("{0}")]
    NotReplaced(io::Error),
    /// The file is replaced, but a power cut may undo that.
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
    /// Writes a file's new content, beside it.
    ///
    /// # Errors
    /// The folder cannot be written to, the disk is full, or the file cannot be replaced. Nothing is left behind.
    pub fn write(path: &Path, content: &[u8]) -> io::Result<Self> {
        let target = regular_file::target_of(path)?;
        regular_file::check_replaceable(&target)?;
        let temporary = layout::temporary(&target);
        let named = |error| file_error::named(&temporary, error);
        let mut file = regular_file::create_new(&temporary).map_err(named)?;
        // From here on it is removed when it is dropped.
        let replacement = Self { temporary: Some(temporary.clone()), target };
        file.write_all(content).and_then(|()| file.sync_all()).map_err(named)?;
        Ok(replacement)
    }

    /// Renames it, and waits until that is on disk.
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
            // A file that cannot be removed is replaced by the next one.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Lines that were appended to a file, and are on disk.
#[derive(Debug)]
pub struct Appended {
    file: File,
    path: PathBuf,
    /// The file's length before and after; a new file may have got its first line too.
    before: u64,
    after: u64,
    is_new: bool,
}

/// What follows the last line break of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// A whole line without its line break.
    Line,
    /// The beginning of a line, left by a program that was stopped while it wrote.
    Torn,
    /// Something else, which must not be cut off.
    Foreign,
}

/// Lines to append to a file.
pub struct Lines<'l> {
    /// The first line of an empty file.
    pub head: &'l [u8],
    /// The lines, each with a line break at its end.
    pub lines: &'l [u8],
    /// Classifies the bytes after the last line break.
    pub tail: fn(&[u8]) -> Tail,
}

/// Appends whole lines to a file, all or none, and waits until they are on disk. The file gets mode 0600, and is made
/// when it is missing. `check` sees it before it is changed.
///
/// # Errors
/// The file cannot be written, the disk is full, or `check` fails. The file is unchanged.
pub fn append(path: &Path, lines: &Lines, check: impl Fn(&File) -> io::Result<()>) -> io::Result<Appended> {
    let is_new = !path.exists();
    let file = open_locked(path, check)?;
    let before = file.metadata()?.len();
    let mut appended = Appended { file, path: path.to_owned(), before, after: before, is_new };
    if let Err(error) = appended.write(lines) {
        appended.after = appended.file.metadata()?.len();
        appended.take_back()?;
        return Err(error);
    }
    Ok(appended)
}

/// Opens a file for appending, and locks it. A file that was removed while its lock was waited for is not used.
fn open_locked(path: &Path, check: impl Fn(&File) -> io::Result<()>) -> io::Result<File> {
    loop {
        let file = regular_file::open_append(path)?;
        check(&file)?;
        lock_within(&file, APPEND_PATIENCE).map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another process is adding to it"),
            TryLockError::Error(error) => error,
        })?;
        let opened = FileId::from_metadata(&file.metadata()?);
        if path.symlink_metadata().is_ok_and(|named| FileId::from_metadata(&named) == opened) {
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

    /// The bytes after the last line break. After a power cut they may be zeros: the file's length reached the disk
    /// before its bytes.
    fn tail(&self) -> io::Result<Vec<u8>> {
        let from = self.before.saturating_sub(LINE_BYTES);
        let mut end = vec![0; usize::try_from(self.before - from).unwrap_or_default()];
        self.file.read_exact_at(&mut end, from)?;
        let tail = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Ok(end.split_off(tail))
    }

    /// Removes the lines again, when they are not true after all. Returns false, and leaves them, when an editor has
    /// changed the file meanwhile.
    ///
    /// # Errors
    /// The file cannot be shortened. The lines stay.
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

/// Makes a directory that only its owner may enter, and its missing parents.
pub fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Waits until a directory's entries are on disk.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync_dir(folder.unwrap_or(Path::new(".")))
}
