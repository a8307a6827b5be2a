//! What an operator needs to know about a file that cannot be used: its path, its owner, and the system's error. A
//! worker in its sandbox must not describe a file: it may not ask for its user id.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::file_owner::user;

/// The system's error; when access is denied, also the owner of the file or folder in the way. The path itself is
/// left to the caller.
pub fn text(path: &Path, error: &io::Error) -> String {
    // An error with its own text was explained where it was made.
    let whose = if error.raw_os_error().is_some() { obstacle(path, error) } else { None };
    let Some((file, found)) = whose else { return error.to_string() };
    let (owner, me) = (user(found.uid()), user(rustix::process::geteuid().as_raw()));
    let mode = found.permissions().mode() & 0o7777;
    format!("{error}; {} belongs to {owner}, mode {mode:04o}, and this process is {me}", file.display())
}

/// The error with the path and [`text`].
pub fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {}", path.display(), text(path, &error)))
}

/// The error with [`text`], when access was denied.
pub fn explained(path: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    io::Error::new(error.kind(), text(path, &error))
}

/// Whether nothing is at the path.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether nothing may be written there, by this user or by any.
pub fn is_unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// What denies access to a path: the deepest part of it whose metadata can be read. It is the file itself, the folder
/// that it cannot be made in, or a folder that may not be entered.
fn obstacle(path: &Path, error: &io::Error) -> Option<(PathBuf, Metadata)> {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return None;
    }
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find_map(|at| Some((at.to_owned(), at.metadata().ok()?)))
}
