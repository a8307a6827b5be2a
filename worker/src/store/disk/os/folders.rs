//! Which files a tenant's directory has, those in folders to which links lead included. Folders are opened name by name and
//! not through links, so that none leads out of the directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use sq_shared::layout;
use sq_shared::phext_name::PhextName;

use super::OsDisk;
use crate::store::disk::{Disk, FileName, file_of, is_harmless, path_of};
use crate::store::links::Followed;

/// A file's folder is not there. What is to be made in it fails harmlessly, as where a name is taken.
pub(super) const NO_FOLDER: Errno = Errno::NOTDIR;

/// The folder that a file is in, and the file's name there.
pub(super) struct Place<'a> {
    folder: Folder<'a>,
    pub(super) name: PathBuf,
}

enum Folder<'a> {
    /// The tenant's directory.
    Directory(&'a File),
    /// One in it.
    Inner(File),
}

impl AsFd for Place<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.folder {
            Folder::Directory(directory) => directory.as_fd(),
            Folder::Inner(folder) => folder.as_fd(),
        }
    }
}

impl OsDisk {
    pub(super) fn remove_leftovers(&self) -> io::Result<()> {
        for file in self.files_that(FileName::is_temporary)? {
            if !self.identity(&file)?.is_some_and(|identity| identity.is_file) {
                continue;
            }
            match self.remove(&file) {
                // It is in the way of its own phext only.
                Err(error) if is_harmless(&error) => {
                    tracing::warn!(file = %path_of(&file).display(), %error, "failed to remove a temporary file");
                }
                removed => removed?,
            }
        }
        Ok(())
    }

    /// Makes the names of the directory durable, and those of phexts in folders.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        self.directory.sync_all()?;
        self.phexts_in_folders()?.iter().try_for_each(|name| self.sync_name(&FileName::Phext(name.clone())))
    }

    /// Everything in the directory that has one of our names, plain file or not; and the files of phexts in folders.
    pub(in crate::store) fn files(&self) -> io::Result<Vec<FileName>> {
        self.files_that(|_| true)
    }

    fn files_that(&self, is_wanted: impl Fn(&FileName) -> bool) -> io::Result<Vec<FileName>> {
        let mut files = Vec::new();
        self.visit(&mut |name| files.extend(file_of(name).filter(&is_wanted)))?;
        for name in self.phexts_in_folders()? {
            let kinds = [FileName::Phext, FileName::Journal, FileName::NewPhext, FileName::NewJournal];
            let of_phext = kinds.map(|kind| kind(name.clone())).into_iter().filter(&is_wanted);
            files.extend(of_phext.filter(|file| !matches!(self.identity(file), Ok(None))));
        }
        Ok(files)
    }

    /// Where a file is, or would be; [`NO_FOLDER`] without its folder.
    pub(super) fn place_of(&self, file: &FileName) -> rustix::io::Result<Place<'_>> {
        let path = path_of(file);
        let innermost = self.open_folders(&path)?.pop();
        Ok(match (innermost, path.file_name()) {
            (Some(folder), Some(name)) => Place { folder: Folder::Inner(folder), name: name.into() },
            _ => Place { folder: Folder::Directory(&self.directory), name: path },
        })
    }

    /// The folders on the way to a file, the outermost first; none for a file in the directory itself.
    fn open_folders(&self, path: &Path) -> rustix::io::Result<Vec<File>> {
        let mut folders: Vec<File> = Vec::new();
        for name in path.parent().into_iter().flat_map(Path::components) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let outer = folders.last().unwrap_or(&self.directory);
            let folder = match rustix::fs::openat(outer, name.as_os_str(), flags, Mode::empty()) {
                Err(Errno::NOENT) => return Err(NO_FOLDER),
                opened => opened?,
            };
            folders.push(folder.into());
        }
        Ok(folders)
    }

    /// Makes the names of the folders durable in which a file is, and its own. Another program made those folders, and may
    /// not have done so.
    pub(super) fn sync_folders(&self, path: &Path) -> io::Result<()> {
        let folders = self.open_folders(path)?;
        folders.iter().rev().chain([&self.directory]).try_for_each(File::sync_all)
    }

    /// The phexts in folders to which links in the directory lead. A link that cannot be followed matters when somebody asks
    /// for its phext.
    pub(super) fn phexts_in_folders(&self) -> io::Result<Vec<PhextName>> {
        let mut phexts = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let is_link = matches!(entry.file_type(), FileType::Symlink | FileType::Unknown);
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if is_link
                && let Some(name) = layout::phext_of_file(name)
                && let Ok(Followed::To(target)) = self.follow(&name)
                && target.is_in_folder()
            {
                phexts.push(target);
            }
        }
        phexts.sort();
        phexts.dedup();
        Ok(phexts)
    }
}
