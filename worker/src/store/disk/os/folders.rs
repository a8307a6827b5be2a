//! Files in folders of a tenant's directory, to which links lead. Folders are opened name by name, not through links and
//! not into mount points: so they are in the directory and on its disk, and each file has one path.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use sq_shared::layout;
use sq_shared::phext_name::{self, PhextName};

use super::OsDisk;
use crate::store::disk::{Disk, FileName, Identity, file_of, path_of};
use crate::store::links::{BadLink, Followed};

/// A file's folder is missing. Creating a file in it fails harmlessly, as if the name were taken.
pub(super) const NO_FOLDER: Errno = Errno::NOTDIR;

/// The folder that a file is in, and the file's name there.
pub(super) struct Place<'a> {
    folder: Folder<'a>,
    pub(super) name: PathBuf,
}

enum Folder<'a> {
    /// The tenant's directory.
    Directory(&'a File),
    /// A folder in it.
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

impl Place<'_> {
    /// The error as it is meant here: a folder that was removed while it was open is missing.
    pub(super) fn explained(&self, error: Errno) -> Errno {
        match (&self.folder, error) {
            (Folder::Inner(_), Errno::NOENT) => NO_FOLDER,
            _ => error,
        }
    }
}

pub(super) fn name_of(file: &FileName) -> PathBuf {
    let path = path_of(file);
    path.file_name().map(PathBuf::from).unwrap_or(path)
}

impl OsDisk {
    /// Where a file is or would be; [`NO_FOLDER`] when its folder is missing or has been replaced.
    pub(super) fn place_of(&self, file: &FileName) -> rustix::io::Result<Place<'_>> {
        match self.open_folders_of(file)?.pop() {
            Some(folder) => Ok(Place { folder: Folder::Inner(folder), name: name_of(file) }),
            None => Ok(Place { folder: Folder::Directory(&self.directory), name: path_of(file) }),
        }
    }

    /// The folders above a file, the outermost first; empty for a file in the directory itself.
    fn open_folders_of(&self, file: &FileName) -> rustix::io::Result<Vec<File>> {
        let Some(folder) = file.phext().and_then(PhextName::folder) else { return Ok(Vec::new()) };
        let folders = self.open_folders(&folder.path)?;
        match folders.last().map(inode_of).transpose()? {
            Some(inode) if inode == folder.inode => Ok(folders),
            _ => Err(NO_FOLDER),
        }
    }

    fn open_folders(&self, path: &Path) -> rustix::io::Result<Vec<File>> {
        let mut folders: Vec<File> = Vec::new();
        for name in path.components() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let outer = folders.last().unwrap_or(&self.directory);
            let folder = match rustix::fs::openat(outer, name.as_os_str(), flags, Mode::empty()) {
                Err(Errno::NOENT) => return Err(NO_FOLDER),
                opened => File::from(opened?),
            };
            if mount_of(&folder)? != mount_of(&self.directory)? {
                return Err(Errno::XDEV);
            }
            folders.push(folder);
        }
        Ok(folders)
    }

    /// Makes a file's name durable, and those of its folders: the program that created these may not have synced them.
    pub(super) fn sync_folders(&self, file: &FileName) -> io::Result<()> {
        let folders = self.open_folders_of(file)?;
        folders.iter().rev().chain([&self.directory]).try_for_each(File::sync_all)
    }

    /// Whether a link that leads here, through these links, is followed.
    pub(super) fn follow_to(&self, end: &Path, passed: &[PathBuf]) -> io::Result<Followed> {
        let target = match self.phext_at(end) {
            Ok(Some(target)) => target,
            Ok(None) | Err(Errno::NAMETOOLONG) => return Ok(Followed::Refused(BadLink::NoPhext)),
            Err(NO_FOLDER) => return Ok(Followed::Refused(BadLink::Missing)),
            Err(Errno::XDEV) => return Ok(Followed::Refused(BadLink::Mounted)),
            Err(error) => return Err(self.named_path(end, error.into())),
        };
        for link in passed {
            if let Ok(Some(link)) = self.phext_at(link)
                && self.identity(&FileName::Journal(link))?.is_some()
            {
                return Ok(Followed::Refused(BadLink::BesideJournal));
            }
        }
        let is_file = |file: Option<Identity>| file.is_some_and(|file| file.is_file);
        if target.folder().is_some() && !is_file(self.identity(&FileName::Phext(target.clone()))?) {
            return Ok(Followed::Refused(BadLink::Missing));
        }
        Ok(Followed::To(target))
    }

    /// The phext whose file has this path, which has no links; `None` for any other file.
    fn phext_at(&self, path: &Path) -> rustix::io::Result<Option<PhextName>> {
        let Some(name) = path.file_name().and_then(layout::phext_of_file) else { return Ok(None) };
        let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
            return Ok(Some(name));
        };
        let Some(inode) = self.open_folders(folder)?.last().map(inode_of).transpose()? else {
            return Ok(None);
        };
        Ok(name.in_folder(phext_name::Folder { path: folder.to_owned(), inode }))
    }

    /// Everything in the directory that has one of the store's names, plain file or not; and the files of phexts in
    /// folders.
    pub(in crate::store) fn files(&self) -> io::Result<Vec<FileName>> {
        let mut files = Vec::new();
        self.visit(&mut |name| files.extend(file_of(name)))?;
        for name in self.phexts_in_folders()? {
            let kinds = [FileName::Phext, FileName::Journal, FileName::NewPhext, FileName::NewJournal];
            let of_phext = kinds.map(|kind| kind(name.clone()));
            files.extend(of_phext.into_iter().filter(|file| !matches!(self.identity(file), Ok(None))));
        }
        Ok(files)
    }

    /// The phexts in folders to which links lead. A bad link is reported when its own name is checked.
    fn phexts_in_folders(&self) -> io::Result<Vec<PhextName>> {
        let mut phexts = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let is_link = matches!(entry.file_type(), FileType::Symlink | FileType::Unknown);
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if is_link
                && let Some(name) = layout::phext_of_file(name)
                && let Ok(Followed::To(target)) = self.follow(&name)
                && target.folder().is_some()
            {
                phexts.push(target);
            }
        }
        phexts.sort();
        phexts.dedup();
        Ok(phexts)
    }
}

/// The mount of a file: its number (since Linux 5.8), and the device.
fn mount_of(file: &File) -> rustix::io::Result<(Option<u64>, u32, u32)> {
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let has_number = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    Ok((has_number.then_some(found.stx_mnt_id), found.stx_dev_major, found.stx_dev_minor))
}

fn inode_of(file: &File) -> rustix::io::Result<u64> {
    Ok(rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::INO)?.stx_ino)
}
