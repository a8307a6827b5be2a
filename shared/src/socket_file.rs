//! Finds out whether a server listens on a socket file, without waiting: a connection to a server that does not
//! accept would wait in `connect` until it does.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::file_id::FileId;

/// The result of connecting.
#[derive(Debug)]
pub enum Connected {
    /// A server has the connection, or has it in its queue.
    To(UnixStream),
    /// A server listens, and its queue is full.
    QueueIsFull,
}

/// Connects at once, or not at all.
///
/// # Errors
/// Nothing listens there, or it is not a socket.
pub fn connect(path: &Path) -> io::Result<Connected> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => {
            let stream = UnixStream::from(socket);
            stream.set_nonblocking(false)?;
            Ok(Connected::To(stream))
        }
        Err(Errno::AGAIN) => Ok(Connected::QueueIsFull),
        Err(error) => Err(error.into()),
    }
}

/// Removes a socket file on which nothing listens: it is left over from a process that was killed.
pub fn remove_dead(path: &Path) -> io::Result<()> {
    let is_dead = || connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_socket(path) && is_dead() { fs::remove_file(path) } else { Ok(()) }
}

/// Whether there is a socket file at this path, which is not a link.
pub fn is_socket(path: &Path) -> bool {
    id(path).is_some()
}

/// Identifies the socket file at this path.
pub fn id(path: &Path) -> Option<FileId> {
    let found = fs::symlink_metadata(path).ok()?;
    found.file_type().is_socket().then(|| FileId::from_metadata(&found))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn only_a_socket_that_nothing_listens_on_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        drop(UnixListener::bind(path("dead")).unwrap());
        let _alive = UnixListener::bind(path("alive")).unwrap();
        let _datagrams = UnixDatagram::bind(path("datagrams")).unwrap();
        let full = UnixListener::bind(path("full")).unwrap();
        rustix::net::listen(&full, 0).unwrap();
        let mut waiting = Vec::new();
        while let Connected::To(stream) = connect(&path("full")).unwrap() {
            waiting.push(stream);
        }
        fs::write(path("file"), "a file").unwrap();
        for name in ["dead", "alive", "datagrams", "full", "file", "nothing"] {
            remove_dead(&path(name)).unwrap();
            let is_there = fs::symlink_metadata(path(name)).is_ok();
            assert_eq!(is_there, !matches!(name, "dead" | "nothing"), "{name}");
        }
    }
}
