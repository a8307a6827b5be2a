//! Files that only their owner may read, and directories that only their owner may enter: written so that a
//! power cut leaves the old content or the new. None is written through a link.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use crate::{layout, regular_file};

/// Puts a file of mode 0600 in the place of what was there, by rename.
///
/// # Errors
/// The folder cannot be written to.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = layout::temporary(path);
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", temporary.display()));
    let mut file = regular_file::create_new(&temporary).map_err(named)?;
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
    let file = regular_file::open_append(path)?;
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
