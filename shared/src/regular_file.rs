//! Opens regular files and nothing else: another user of a folder may have put a link or a pipe in a file's place.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Reads a whole file. Links are followed, because a config may lie behind one; a pipe is refused instead of waited for.
///
/// # Errors
/// It cannot be opened or read, is no regular file, or is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut file = File::options().read(true).custom_flags(flags(OFlags::NONBLOCK)).open(path)?;
    check_type(&file.metadata()?)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Opens a file to append to it, or makes it with mode 0600.
///
/// # Errors
/// It cannot be opened, is a link, or is not a regular file; or it has a second name (a hard link), so that its owner may
/// not expect anyone to write to it here.
pub fn open_append(path: &Path) -> io::Result<File> {
    let no_wait = flags(OFlags::NOFOLLOW | OFlags::NONBLOCK);
    let opened = File::options().create(true).append(true).mode(0o600).custom_flags(no_wait).open(path);
    let file = opened.map_err(explain)?;
    let found = file.metadata()?;
    check_type(&found)?;
    if found.nlink() > 1 {
        return Err(io::Error::other("has a second name (a hard link), and is not written to: remove it"));
    }
    Ok(file)
}

/// Makes a file of mode 0600 that was not there, or was left over by a process that ended before it renamed it.
///
/// # Errors
/// It cannot be made, or what is there cannot be removed.
pub fn create_new(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::options().create_new(true).write(true).mode(0o600).open(path),
    }
}

fn check_type(found: &Metadata) -> io::Result<()> {
    if found.is_file() { Ok(()) } else { Err(io::Error::other("is not a regular file")) }
}

/// What open(2) says of a link, and of a pipe that is not read from.
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
    fn what_is_no_regular_file_is_neither_read_nor_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("victim"), "text").unwrap();
        std::fs::hard_link(path("victim"), path("second-name")).unwrap();
        symlink(path("victim"), path("link")).unwrap();
        symlink(path("absent"), path("dangling")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RWXU).unwrap();
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
