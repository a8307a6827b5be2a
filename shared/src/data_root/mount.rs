//! The mount that a directory is on. An operator who moves data to another disk copies the folder and mounts the disk
//! over it: under the mount point an old copy is left, with the same marker. So the mount of a directory is noted;
//! afterwards a folder under that mount point is not taken for the directory.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::file_id::FileId;
use crate::mounts;

/// Begins the line that names a mount, in a tenant's note and beside the config: device and inode of the directory,
/// and the mount point.
pub(super) const MOUNTED: &str = "mounted";

/// A mount on which a directory was seen. It is not the root file system's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    /// The directory that was seen there.
    directory: FileId,
}

/// Where a directory is now.
#[derive(Debug)]
pub(super) struct Position {
    /// Links followed.
    path: PathBuf,
    mount_point: PathBuf,
    /// Something is mounted on the directory, even if it is the same folder.
    is_mount_point: bool,
    directory: FileId,
}

impl Position {
    /// The position of an open directory.
    pub(super) fn new(directory: &File) -> io::Result<Self> {
        let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
        let points = mounts::points_of(directory)?;
        Ok(Self {
            is_mount_point: points.nearest == path,
            path,
            mount_point: points.real,
            directory: FileId::from_metadata(&directory.metadata()?),
        })
    }

    /// The directory's mount; `None` for the root file system.
    pub(super) fn mount(&self) -> Option<Mount> {
        let Self { mount_point, directory, .. } = self;
        (mount_point != Path::new("/")).then(|| Mount { point: mount_point.clone(), directory: *directory })
    }
}

impl Mount {
    /// A directory's mount, when it is not the data root's.
    pub(super) fn apart_from(root: &File, directory: &File) -> Option<Self> {
        if mounts::id_of(root).ok()? == mounts::id_of(directory).ok()? {
            return None;
        }
        let mount = Position::new(directory).ok()?.mount()?;
        (mount.point != Position::new(root).ok()?.mount_point).then_some(mount)
    }

    /// A mount on the directory itself, as older notes have it.
    pub(super) fn at(point: PathBuf) -> Self {
        Self { point, directory: FileId::NONE }
    }

    /// Whether this is the directory that was seen. In a container it may be, while the mount is another process's.
    pub(super) fn had(&self, directory: FileId) -> bool {
        self.directory == directory
    }

    /// Whether a directory is under the mount point while nothing is mounted there.
    pub(super) fn is_missing_at(&self, position: &Position) -> bool {
        let Position { path, mount_point, is_mount_point, directory } = position;
        if self.directory == FileId::NONE {
            return !is_mount_point;
        }
        let is_uncovered = *mount_point != self.point && self.point.starts_with(mount_point);
        path.starts_with(&self.point) && is_uncovered && !self.had(*directory)
    }

    /// The line of a note; `None` for a mount point whose name does not fit on a line.
    pub(super) fn line(&self) -> Option<String> {
        let FileId { device, inode } = self.directory;
        let point = self.point.to_str().filter(|point| !point.contains('\n'))?;
        Some(format!("{MOUNTED} {device} {inode} {point}\n"))
    }

    /// Finds the line in a note.
    pub(super) fn find(text: &str) -> Option<Self> {
        let parse = |line: &str| {
            let mut fields = line.strip_prefix(MOUNTED)?.strip_prefix(' ')?.splitn(3, ' ');
            let mut number = || fields.next()?.parse().ok();
            let directory = FileId { device: number()?, inode: number()? };
            let point = PathBuf::from(fields.next()?);
            point.is_absolute().then_some(Self { point, directory })
        };
        text.lines().find_map(parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: FileId = FileId { device: 2049, inode: 2 };
    const OTHER: FileId = FileId { device: 1, inode: 77 };

    fn position(path: &str, mount_point: &str, directory: FileId) -> Position {
        let is_mount_point = path == mount_point;
        Position { path: path.into(), mount_point: mount_point.into(), is_mount_point, directory }
    }

    #[test]
    fn a_directory_is_missing_under_its_mount_point_alone() {
        let mount = position("/srv/sq/data", "/srv/sq", SEEN).mount().unwrap();
        for (path, mount_point, directory, is_missing) in [
            ("/srv/sq/data", "/srv/sq", SEEN, false),
            // Another disk, at the same place or a longer path.
            ("/srv/sq/data", "/srv/sq", OTHER, false),
            ("/srv/sq/data", "/srv/sq/data", OTHER, false),
            ("/srv/sq/data", "/", OTHER, true),
            ("/srv/sq/data", "/srv", OTHER, true),
            // It was mounted for another process alone.
            ("/srv/sq/data", "/", SEEN, false),
            // It was moved.
            ("/home/sq/data", "/", OTHER, false),
            ("/srv/sq-2/data", "/", OTHER, false),
        ] {
            let is = mount.is_missing_at(&position(path, mount_point, directory));
            assert_eq!(is, is_missing, "{path} on {mount_point}");
        }
        assert_eq!(position("/srv/sq/data", "/", SEEN).mount(), None);
        // The note of a version before: any mount on the directory will do, one of the folder on itself too.
        let noted = Mount::at("/srv/alice".into());
        let bound = Position { is_mount_point: true, ..position("/srv/alice", "/", OTHER) };
        assert!(!noted.is_missing_at(&bound) && noted.is_missing_at(&position("/srv/alice", "/", OTHER)));
    }

    #[test]
    fn a_line_is_read_as_it_was_written_and_nothing_else_is() {
        let mount = position("/mnt/a disk/x", "/mnt/a disk", SEEN).mount().unwrap();
        let line = mount.line().unwrap();
        assert_eq!(line, "mounted 2049 2 /mnt/a disk\n");
        assert_eq!(Mount::find(&format!("an id\n# a remark\n{line}")), Some(mount));
        for text in [
            "",
            "a folder\n",
            "mounted",
            "mounted 1 2",
            "mounted 1 2 here",
            "mounted x 2 /mnt",
            "unmounted 1 2 /mnt",
        ] {
            assert_eq!(Mount::find(text), None, "{text}");
        }
        assert_eq!(Mount::at("/mnt/a\nb".into()).line(), None);
    }
}
