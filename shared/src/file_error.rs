//! What an operator must know of a file that cannot be used: which one it is, whose it is, and what the system says. Not
//! for a worker that has locked itself in: it may not ask who it is.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::file_owner::user;

/// What the system says; and when it is that access is denied, whose the file is that is in the way. The path itself is
/// for the caller to say.
pub fn text(path: &Path, error: &io::Error) -> String {
    // What has a text already has been looked at where it came from.
    let whose = if error.raw_os_error().is_some() { obstacle(path, error) } else { None };
    let Some((file, found)) = whose else { return error.to_string() };
    let (owner, me) = (user(found.uid()), user(rustix::process::geteuid().as_raw()));
    let mode = found.permissions().mode() & 0o7777;
    format!("{error}; {} belongs to {owner}, mode {mode:04o}, and this process is {me}", file.display())
}

/// The same error, with the path and this text.
pub fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {}", path.display(), text(path, &error)))
}

/// The same error, with this text.
pub fn explained(path: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    io::Error::new(error.kind(), text(path, &error))
}

/// What denies access on the way to a path: the lowest thing on it that can be looked at. It is the file; or the folder
/// that it cannot be made in, or that may not be entered.
fn obstacle(path: &Path, error: &io::Error) -> Option<(PathBuf, Metadata)> {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return None;
    }
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find_map(|at| Some((at.to_owned(), at.metadata().ok()?)))
}
