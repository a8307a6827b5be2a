//! What is mounted in a directory. The kernel lists the mount points of the whole host, and their names need not be UTF-8.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const LIST: &str = "/proc/self/mountinfo";

/// Which field of a line has the mount point (proc_pid_mountinfo(5)).
const MOUNT_POINT: usize = 4;

/// Every mount point that this process sees.
///
/// # Errors
/// The list cannot be read. Nothing is known then: it does not mean that nothing is mounted.
pub fn points() -> io::Result<Vec<PathBuf>> {
    let list = fs::read(LIST)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {LIST}: {error}")))?;
    let lines = list.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(MOUNT_POINT)).map(unescaped).collect())
}

/// The first mount point that is this directory or in it.
///
/// # Errors
/// The list cannot be read.
pub fn first_in(real: &Path) -> io::Result<Option<PathBuf>> {
    Ok(points()?.into_iter().find(|point| point.starts_with(real)))
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

    use super::*;

    #[test]
    fn a_mount_point_has_its_own_bytes() {
        let bytes = |field: &[u8]| unescaped(field).as_os_str().as_bytes().to_owned();
        assert_eq!(bytes(b"/a\\040b\\011c\\012d\\134e"), b"/a b\tc\nd\\e");
        assert_eq!(bytes(b"/\\134040\\"), b"/\\040\\");
        assert_eq!(bytes(b"/\xc3\xff"), b"/\xc3\xff");
    }
}
