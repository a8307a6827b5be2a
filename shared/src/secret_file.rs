//! Files that only their owner may read, and directories that only their owner may enter: written so that a
//! power cut leaves the old content or the new.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use crate::layout;

/// Puts a file of mode 0600 in the place of what was there, by rename.
///
/// # Errors
/// The folder cannot be written to.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = layout::temporary(path);
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    give_to_owner_of(if path.exists() { path } else { folder_of(path) }, &file)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_folder_of(path)
}

/// Adds to a file, which is made with mode 0600 when it is missing, and made so when it was not. `write` gets
/// the file and whether it was empty.
///
/// # Errors
/// The file cannot be written, or `write` fails.
pub fn append(path: &Path, write: impl FnOnce(&File, bool) -> io::Result<()>) -> io::Result<()> {
    let file = File::options().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    write(&file, file.metadata()?.len() == 0)?;
    file.sync_all()?;
    sync_folder_of(path)
}

/// Makes a directory that only its owner may enter, and those above it that are missing.
///
/// # Errors
/// It cannot be made.
pub fn create_dir(path: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for made in missing.into_iter().rev() {
        give_to_owner_of(folder_of(made), &File::open(made)?)?;
    }
    Ok(())
}

/// What root makes belongs to whoever has what it replaces, or the folder that it is in: gateway and pool run as a
/// user of their own, and must read what an administrator has changed.
pub(crate) fn give_to_owner_of(model: &Path, made: &File) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(model)?;
    fchown(made, Some(owner.uid()), Some(owner.gid()))
}

/// Waits until a directory's entries are on disk.
///
/// # Errors
/// It cannot be opened or synced.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    sync_dir(folder_of(path))
}

/// Where a path's last name stands.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
