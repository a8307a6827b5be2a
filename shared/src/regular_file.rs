//! Opens only regular files: another user of a folder may have replaced a file by a link or a pipe.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::file_error;
use crate::layout::LINKS;

/// Reads a whole file. Links are followed, because a config may be one; a pipe is refused instead of waited for. A
/// UTF-8 byte order mark, which some editors write, is not part of the text.
///
/// # Errors
/// It cannot be opened or read, is no regular file, or is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    if bytes.starts_with(UTF8_MARK) {
        bytes.drain(..UTF8_MARK.len());
    }
    check_encoding(&bytes)?;
    String::from_utf8(bytes)
        .map_err(|error| not_text(not_utf8(error.as_bytes(), error.utf8_error().valid_up_to())))
}

/// Opens a file for reading, through links. A pipe is refused instead of waited for.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(flags(OFlags::NONBLOCK)).open(path)?;
    check_type(&file.metadata()?)?;
    Ok(file)
}

/// The byte order mark, U+FEFF, in UTF-8.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// The byte order marks of the other encodings that editors write (little endian, big endian).
const OTHER_MARKS: [(&[u8], &str); 4] = [
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
];

/// Names the encoding when it is recognisable. Our texts have no zero byte; UTF-16 without a mark has many.
fn check_encoding(bytes: &[u8]) -> io::Result<()> {
    let marked = OTHER_MARKS.iter().find(|(mark, _)| bytes.starts_with(mark));
    if let Some((_, encoding)) = marked {
        return Err(not_text(format!("is {encoding}: save it as UTF-8")));
    }
    match bytes.iter().position(|byte| *byte == 0) {
        Some(offset) => Err(not_text(format!(
            "has a zero byte (byte {offset}), as UTF-16 has many: save it as UTF-8 text"
        ))),
        None => Ok(()),
    }
}

fn not_utf8(bytes: &[u8], valid_up_to: usize) -> String {
    let before = bytes.get(..valid_up_to).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    format!("is not UTF-8 (line {line}, byte {valid_up_to}): save it as UTF-8")
}

fn not_text(message: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}

/// Opens a file for appending, and for reading its end; makes it with mode 0600 when it is missing.
///
/// # Errors
/// It cannot be opened, is a link or not a regular file, or has a second name (a hard link): its owner may not expect
/// a write to it here.
pub fn open_append(path: &Path) -> io::Result<File> {
    let no_wait = flags(OFlags::NOFOLLOW | OFlags::NONBLOCK);
    let opened =
        File::options().create(true).read(true).append(true).mode(0o600).custom_flags(no_wait).open(path);
    let file = opened.map_err(explain)?;
    check_appendable(&file.metadata()?)?;
    Ok(file)
}

/// Checks that a file may be appended to, before it is opened. (An open file is not a link.)
///
/// # Errors
/// As for [`open_append`].
pub fn check_appendable(found: &Metadata) -> io::Result<()> {
    if found.is_symlink() {
        return Err(explain(Errno::LOOP.into()));
    }
    check_type(found)?;
    if found.nlink() > 1 {
        return Err(io::Error::other("has a second name (a hard link), and is not written to: remove it"));
    }
    Ok(())
}

/// Makes a new file of mode 0600. Replaces one that is left over from a process that ended before it renamed it.
pub fn create_new(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => File::options().create_new(true).write(true).mode(0o600).open(path),
    }
}

/// The file that a path leads to, which may not exist yet: the path itself, or the end of a chain of links. A file is
/// replaced and locked at its target: a link stays a link, and all names of a file share one lock.
///
/// # Errors
/// The links form a circle; one of them was made by a user other than this process's, root, or the owner of the
/// folder that it is in, as anyone can in `/tmp`; or a part of the path cannot be read.
pub fn target_of(path: &Path) -> io::Result<PathBuf> {
    let mut file = path.to_owned();
    for _ in 0..=LINKS {
        let named = |error| file_error::named(&file, error);
        let found = match std::fs::symlink_metadata(&file) {
            Err(error) if file_error::is_absent(&error) => return Ok(file),
            found => found.map_err(named)?,
        };
        if !found.is_symlink() {
            return Ok(file);
        }
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let trusted = [0, rustix::process::geteuid().as_raw(), folder.metadata().map_err(named)?.uid()];
        if !trusted.contains(&found.uid()) {
            let text = format!("is a symbolic link of user {}, and is not followed: remove it", found.uid());
            return Err(named(io::Error::other(text)));
        }
        file = folder.join(std::fs::read_link(&file).map_err(named)?);
    }
    Err(io::Error::other(format!("{}: symbolic links lead from one to the next without end", path.display())))
}

/// Checks that another file can be renamed over this one, which may not exist yet.
///
/// # Errors
/// It is a mount point, as in a container that was given this one file; it is immutable; or it is a directory.
pub fn check_replaceable(path: &Path) -> io::Result<()> {
    let found = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
    let found = match found {
        // Without the system call, the rename will tell.
        Err(Errno::NOENT | Errno::NOSYS) => return Ok(()),
        found => found?,
    };
    if FileType::from_raw_mode(found.stx_mode.into()) == FileType::Directory {
        return Err(io::Error::other("is a directory"));
    }
    if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(io::Error::new(
            ErrorKind::ResourceBusy,
            "is a mount point (a bind mount), and cannot be replaced: mount the folder that it is in instead",
        ));
    }
    if found.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND) {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "is set immutable or append-only, and cannot be replaced: chattr -i -a",
        ));
    }
    Ok(())
}

fn check_type(found: &Metadata) -> io::Result<()> {
    if found.is_file() { Ok(()) } else { Err(io::Error::other("is not a regular file")) }
}

/// open(2)'s errors for a link, and for a pipe without a reader.
fn explain(error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => io::Error::other("is a symbolic link, which is not followed: remove it"),
        Some(Errno::NXIO) => io::Error::other("is not a regular file"),
        _ => error,
    }
}

fn flags(flags: OFlags) -> i32 {
    // The bits of open(2)'s `int`.
    flags.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_followed_to_what_is_not_there_yet_and_not_round_and_round() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("deep/er")).unwrap();
        std::fs::write(path("deep/file"), "").unwrap();
        symlink("deep/er", path("folder")).unwrap();
        symlink("folder/../file", path("relative")).unwrap();
        symlink(path("relative"), path("chain")).unwrap();
        symlink("deep/absent", path("dangling")).unwrap();
        symlink("round", path("square")).unwrap();
        symlink("square", path("round")).unwrap();
        let inode = |path: PathBuf| path.metadata().unwrap().ino();
        for name in ["deep/file", "relative", "chain", "folder/../../relative"] {
            let target = target_of(&path(name)).unwrap();
            assert!(!target.is_symlink(), "{name}");
            assert_eq!(inode(target), inode(path("deep/file")), "{name}");
        }
        assert_eq!(target_of(&path("dangling")).unwrap(), path("deep/absent"));
        assert_eq!(target_of(&path("absent/file")).unwrap(), path("absent/file"));
        assert!(target_of(&path("round")).unwrap_err().to_string().contains("without end"));
        check_replaceable(&path("deep/absent")).unwrap();
        check_replaceable(&path("deep/file")).unwrap();
        check_replaceable(&path("deep")).unwrap_err();
    }

    #[test]
    fn what_is_no_regular_file_is_neither_read_nor_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("victim"), "text").unwrap();
        std::fs::hard_link(path("victim"), path("second-name")).unwrap();
        symlink(path("victim"), path("link")).unwrap();
        symlink(path("absent"), path("dangling")).unwrap();
        rustix::fs::mkfifoat(CWD, path("pipe"), rustix::fs::Mode::RWXU).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        for name in ["second-name", "link", "dangling", "pipe", "folder"] {
            open_append(&path(name)).expect_err(name);
        }
        for name in ["pipe", "folder"] {
            read_to_string(&path(name)).expect_err(name);
        }
        assert_eq!(read_to_string(&path("link")).unwrap(), "text");
        for name in ["second-name", "link", "dangling", "pipe"] {
            assert_eq!(create_new(&path(name)).unwrap().metadata().unwrap().len(), 0, "{name}");
        }
        create_new(&path("folder")).unwrap_err();
        assert_eq!(read_to_string(&path("victim")).unwrap(), "text");
        assert!(!path("absent").exists());
    }
}
