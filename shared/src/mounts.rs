//! Reads the list of mounts. It has the mounts of the whole host, and their names need not be UTF-8.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, StatxFlags};

const LIST: &str = "/proc/self/mountinfo";

/// Asks for a file's mount: `STATX_MNT_ID` of statx(2), since Linux 5.8.
const MOUNT_ID: StatxFlags = StatxFlags::from_bits_retain(0x1000);

/// A line of the list (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    id: u64,
    /// The mount that this one is in.
    parent: u64,
    device: Vec<u8>,
    /// Which folder of the file system is mounted.
    folder: PathBuf,
    point: PathBuf,
}

/// Every mount point that this process sees.
///
/// # Errors
/// The list cannot be read. That does not mean that nothing is mounted.
pub fn points() -> io::Result<Vec<PathBuf>> {
    Ok(list()?.into_iter().map(|mount| mount.point).collect())
}

/// The mount points under which an open file is.
#[derive(Debug, PartialEq, Eq)]
pub struct Points {
    /// The nearest mount point above it.
    pub nearest: PathBuf,
    /// The mount point of the nearest mount that is not of a folder on itself. systemd makes such mounts for
    /// `ReadWritePaths`; the folder is where it was before.
    pub real: PathBuf,
}

/// The mount points under which an open file is.
///
/// # Errors
/// The system does not say, or its list changes too fast.
pub fn points_of(file: &File) -> io::Result<Points> {
    let id = id_of(file)?;
    points_among(&list()?, id).ok_or_else(|| io::Error::other(format!("mount {id} is not in {LIST}")))
}

/// The id of an open file's mount, which tells whether two files are on the same mount.
pub fn id_of(file: &File) -> io::Result<u64> {
    let found = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, MOUNT_ID)?;
    match found.stx_mask & MOUNT_ID.bits() {
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(found.stx_mnt_id),
    }
}

fn list() -> io::Result<Vec<Mount>> {
    let list = fs::read(LIST)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {LIST}: {error}")))?;
    Ok(list.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
}

/// `None` when the list has no such mount, or changed while it was read and has a circle.
fn points_among(mounts: &[Mount], id: u64) -> Option<Points> {
    let find = |id: u64| mounts.iter().find(|mount| mount.id == id);
    let nearest = find(id)?;
    let mut mount = nearest;
    for _ in mounts {
        match find(mount.parent).filter(|parent| mount.is_on_itself(parent)) {
            Some(parent) => mount = parent,
            None => return Some(Points { nearest: nearest.point.clone(), real: mount.point.clone() }),
        }
    }
    None
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        let device = fields.next()?.to_owned();
        let (folder, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
        Some(Self { id, parent, device, folder, point })
    }

    /// Whether the mounted folder is the one that would be at its path without this mount.
    fn is_on_itself(&self, parent: &Self) -> bool {
        let below = self.point.strip_prefix(&parent.point);
        self.device == parent.device && below.is_ok_and(|below| parent.folder.join(below) == self.folder)
    }
}

/// A path as the kernel writes it into a line: what would end a field or a line has its octal number.
fn unescaped(mut field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    while let [first, rest @ ..] = field {
        let (byte, rest) = match field {
            [b'\\', b'0', b'4', b'0', rest @ ..] => (b' ', rest),
            [b'\\', b'0', b'1', b'1', rest @ ..] => (b'\t', rest),
            [b'\\', b'0', b'1', b'2', rest @ ..] => (b'\n', rest),
            [b'\\', b'1', b'3', b'4', rest @ ..] => (b'\\', rest),
            _ => (*first, rest),
        };
        path.push(byte);
        field = rest;
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_mount_point_has_its_own_bytes() {
        let bytes = |field: &[u8]| unescaped(field).as_os_str().as_bytes().to_owned();
        assert_eq!(bytes(b"/a\\040b\\011c\\012d\\134e"), b"/a b\tc\nd\\e");
        assert_eq!(bytes(b"/\\134040\\"), b"/\\040\\");
        assert_eq!(bytes(b"/\xc3\xff"), b"/\xc3\xff");
    }

    #[test]
    fn a_folder_that_is_mounted_on_itself_is_where_it_was() {
        let list = "\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 8:2 / /srv rw - ext4 /dev/sdb1 rw
22 21 8:2 /sq/data /srv/sq/data rw - ext4 /dev/sdb1 rw
23 20 8:1 /var/lib /var/lib rw - ext4 /dev/sda1 rw
24 20 8:1 /srv/elsewhere /mnt rw - ext4 /dev/sda1 rw
25 24 8:1 /srv/elsewhere /mnt rw - ext4 /dev/sda1 rw
26 20 8:3 /var/log /var/log rw - ext4 /dev/sdc1 rw
27 28 8:4 / /a rw - ext4 /dev/sdd1 rw
28 27 8:4 / /a rw - ext4 /dev/sdd1 rw
";
        let mounts: Vec<Mount> =
            list.as_bytes().split(|byte| *byte == b'\n').filter_map(Mount::parse).collect();
        assert_eq!(mounts.len(), 9);
        for (id, point) in
            [(20, "/"), (21, "/srv"), (22, "/srv"), (23, "/"), (24, "/mnt"), (25, "/mnt"), (26, "/var/log")]
        {
            assert_eq!(points_among(&mounts, id).unwrap().real, Path::new(point), "{id}");
        }
        assert_eq!(points_among(&mounts, 22).unwrap().nearest, Path::new("/srv/sq/data"));
        for unknown in [27, 99] {
            assert_eq!(points_among(&mounts, unknown), None);
        }
    }

    #[test]
    fn the_mount_of_an_open_folder_is_in_the_list() {
        let proc = File::open("/proc/self").unwrap();
        assert_eq!(points_of(&proc).unwrap().real, Path::new("/proc"));
    }
}
