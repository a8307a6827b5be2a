//! Finds files that the system's user cannot use. A file that another user has put there, or that root has left
//! behind, is served as an error until the operator gives it back; `check` and `fsck` report such files.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use crate::file_owner::user;
use crate::layout;

/// A file or directory that this process's user may not use.
#[derive(Debug)]
pub struct Denied {
    path: PathBuf,
    is_directory: bool,
    owner: u32,
    mode: u32,
    /// The user of this process.
    uid: u32,
    reason: io::Error,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let (owner, uid) = (user(self.owner), user(self.uid));
        let what = if self.is_directory { "use the directory" } else { "read and write it" };
        write!(
            f,
            "{path}: {uid} may not {what}: {}; it belongs to {owner}, mode {:04o}: ",
            self.reason, self.mode
        )?;
        match (self.owner == self.uid, self.reason.kind()) {
            (_, io::ErrorKind::PermissionDenied)
                if Errno::from_io_error(&self.reason) == Some(Errno::PERM) =>
            {
                // The file is immutable.
                write!(f, "chattr -i -a {path}")
            }
            (true, _) if self.is_directory => write!(f, "chmod u+rwx {path}"),
            (true, _) => write!(f, "chmod u+rw {path}"),
            (false, _) => write!(f, "chown {} {path}", self.uid),
        }
    }
}

/// A file that is to be read and written.
pub fn file(path: &Path) -> Option<Denied> {
    denied(path, Access::READ_OK | Access::WRITE_OK)
}

/// A file that is only read, or replaced as a whole.
pub fn readable_file(path: &Path) -> Option<Denied> {
    denied(path, Access::READ_OK)
}

/// A directory that files are made in.
pub fn directory(path: &Path) -> Option<Denied> {
    denied(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
}

/// A tenant's directory, and the files in it that a worker uses.
pub fn tenant_directory(path: &Path) -> Vec<Denied> {
    // The directory may be a link.
    let path = &layout::resolved(path);
    let mut found: Vec<Denied> = directory(path).into_iter().collect();
    // A directory that cannot be listed has been found above.
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let of_worker = entries.filter(|entry| layout::is_of_worker(&entry.file_name()));
    let in_folders = layout::files_in_folders(path);
    let is_inner = |folder: &&Path| *folder != path && folder.starts_with(path);
    let folders: BTreeSet<&Path> =
        in_folders.iter().flat_map(|file| file.ancestors().skip(1).filter(is_inner)).collect();
    found.extend(folders.into_iter().filter_map(directory));
    let files = of_worker.map(|entry| entry.path()).chain(in_folders.iter().cloned());
    let mut files: Vec<Denied> = files.filter_map(|path| file(&path)).collect();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    found.extend(files);
    found
}

/// `None` also for a file that is missing, for a link, which is not this user's to use, and for a read-only file
/// system, which is not a matter of users.
fn denied(path: &Path, wanted: Access) -> Option<Denied> {
    let found = std::fs::symlink_metadata(path).ok()?;
    if found.is_symlink() {
        return None;
    }
    let refused = rustix::fs::accessat(CWD, path, wanted, AtFlags::EACCESS).err()?;
    let reason = io::Error::from(refused);
    (reason.kind() == io::ErrorKind::PermissionDenied).then(|| Denied {
        path: path.to_owned(),
        is_directory: found.is_dir(),
        owner: found.uid(),
        mode: found.permissions().mode() & 0o7777,
        uid: rustix::process::geteuid().as_raw(),
        reason,
    })
}
