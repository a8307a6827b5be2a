//! The content of a folder, to check that nothing was stored, or that nothing appeared where it must not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// All files below a folder, by their relative path. Files that disappear meanwhile are left out.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    let within = |path: PathBuf| path.strip_prefix(folder).map(Path::to_owned).unwrap_or(path);
    let mut found: Vec<PathBuf> = found.into_iter().map(within).collect();
    found.sort();
    found
}

/// Copies a folder with its content and permissions.
///
/// # Panics
/// Something cannot be read or written.
pub fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().unwrap_or(to)).expect("a folder in the copy");
        fs::copy(from.join(&file), &target).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

/// The tenants' files below a folder: every phext and every journal, with its bytes.
pub fn stored(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let holds_data = |path: &PathBuf| path.extension().is_some_and(|end| end == "phext" || end == "journal");
    let read = |path: PathBuf| fs::read(folder.join(&path)).ok().map(|bytes| (path, bytes));
    files(folder).into_iter().filter(holds_data).filter_map(read).collect()
}
