//! The listening sockets: bound anew, or taken over from another process; and how one is closed without a reset for
//! anybody who is in its queue, or on the way into it.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;
use socket2::{SockFilter, SockRef};
use sq_shared::config::{Config, ListenAddress};
use sq_shared::limits::{CLIENT_BACKLOG, CLIENT_UNSENT_BYTES};
use sq_shared::listen_error::{self, Settings};
use sq_shared::socket_file;

use crate::edge::Listener;

// A filter's operations (linux/filter.h).
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const SKIP_UNLESS_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN_BYTES: u16 = 0x06; // BPF_RET | BPF_K

/// Where a TCP header has its flags, and SYN among them (RFC 9293, 3.1).
const FLAGS_OFFSET: u32 = 13;
const SYN: u32 = 0x02;

/// A filter that lets no SYN in, and everything else; a TCP socket's sees packets from the TCP header on. The last packet
/// of a handshake must pass: its client believes that it is connected when it sends it.
const WITHOUT_SYN: [SockFilter; 4] = [
    SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_OFFSET),
    SockFilter::new(SKIP_UNLESS_SET, 0, 1, SYN),
    SockFilter::new(RETURN_BYTES, 0, 0, 0),
    SockFilter::new(RETURN_BYTES, 0, 0, u32::MAX),
];

/// To connect to a socket's file takes the right to write to it (unix(7)).
const SOCKET_MODE: u32 = 0o666;

/// A listening socket that no address could be had for; the text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BindError(String);

/// What a listening socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Clients come in.
    Clients,
    /// The operator's door.
    Admin,
}

impl Role {
    /// As a log line names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Admin => "admin",
        }
    }

    /// Where the config has its address.
    fn settings(self) -> Settings {
        Settings::one(match self {
            Self::Clients => "[gateway] listen",
            Self::Admin => "[gateway] admin_listen",
        })
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listening {
    /// Of an address and a port.
    Tcp(std::net::TcpListener),
    /// Of a socket file, if it had one when it was bound.
    Unix(std::os::unix::net::UnixListener, Option<FileId>),
}

/// From when on nobody joins the queue of a socket that was shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shut {
    /// From now on, or only when it is closed: there is nothing to wait for.
    Now,
    /// Whoever has begun to connect still joins it.
    OnceHandshakesEnd,
}

/// Which file it is, whatever has its name by now. The number is not given to another file while the socket is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of_socket(path: &Path) -> Option<Self> {
        let file = fs::symlink_metadata(path).ok().filter(|file| file.file_type().is_socket())?;
        Some(Self { device: file.dev(), inode: file.ino() })
    }
}

/// The listening sockets of a gateway.
#[derive(Debug)]
pub struct Sockets {
    /// Where clients come in.
    pub clients: Listening,
    /// Where the operator comes in.
    pub admin: Listening,
    /// Which of them were not bound here, but taken over.
    pub taken: Vec<Role>,
}

impl Sockets {
    /// Binds what the config names.
    ///
    /// # Errors
    /// An address is taken.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        Self::take_or_bind(config, Vec::new())
    }

    /// Takes those of the handed sockets that the config names, and binds the others anew.
    ///
    /// # Errors
    /// An address is taken.
    pub fn take_or_bind(config: &Config, handed: Vec<(Role, Listening)>) -> Result<Self, BindError> {
        let mut taken = Vec::new();
        let (mut clients, mut admin) = (None, None);
        for (role, socket) in handed {
            match role {
                Role::Clients => clients = Some(socket),
                Role::Admin => admin = Some(socket),
            }
        }
        let mut choose = |role, handed: Option<Listening>, configured: &ListenAddress| match handed
            .filter(|socket| socket.fits(role, configured))
        {
            Some(socket) => {
                taken.push(role);
                Ok(socket)
            }
            None => Listening::bind(role, configured),
        };
        let admin_listen = ListenAddress::Tcp(config.gateway.admin_listen);
        let clients = choose(Role::Clients, clients, &config.gateway.listen)?;
        let admin = choose(Role::Admin, admin, &admin_listen)?;
        Ok(Self { clients, admin, taken })
    }

    /// Both, with what they are for.
    pub fn all(&self) -> [(Role, &Listening); 2] {
        [(Role::Clients, &self.clients), (Role::Admin, &self.admin)]
    }
}

impl Listening {
    fn bind(role: Role, address: &ListenAddress) -> Result<Self, BindError> {
        let bound = match address {
            ListenAddress::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            ListenAddress::Unix(path) => {
                bind_unix(path).map(|listener| Self::Unix(listener, FileId::of_socket(path)))
            }
        };
        bound.map_err(|error| BindError(listen_error::explain(address, &error, role.settings())))
    }

    /// A socket that came from another process, which says what its file is.
    ///
    /// # Errors
    /// It is none of ours.
    pub fn of(socket: OwnedFd, file: Option<FileId>) -> io::Result<Self> {
        match socket_domain(&socket)? {
            AddressFamily::INET | AddressFamily::INET6 => Ok(Self::Tcp(socket.into())),
            AddressFamily::UNIX => Ok(Self::Unix(socket.into(), file)),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Where it listens; with port 0 in the config, the port that the system chose.
    ///
    /// # Errors
    /// It listens on a socket without a name.
    pub fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Self::Unix(listener, _) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or(io::ErrorKind::AddrNotAvailable)?;
                Ok(ListenAddress::Unix(path.to_owned()))
            }
        }
    }

    /// Its file, for the next process.
    pub fn file(&self) -> Option<FileId> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, file) => *file,
        }
    }

    fn has_its_file(&self, path: &Path) -> bool {
        self.file().is_some() && self.file() == FileId::of_socket(path)
    }

    /// Whether it is the one that the config names. What was a socket's file may belong to another by now, or be gone.
    fn fits(&self, role: Role, configured: &ListenAddress) -> bool {
        let fits = match (self.address(), configured) {
            (Ok(ListenAddress::Tcp(own)), ListenAddress::Tcp(wanted)) => {
                own.ip() == wanted.ip() && (wanted.port() == 0 || own.port() == wanted.port())
            }
            (Ok(ListenAddress::Unix(own)), ListenAddress::Unix(wanted)) => {
                own == *wanted && self.has_its_file(wanted)
            }
            _ => false,
        };
        if !fits {
            let handed = self.address().map(|address| address.to_string()).unwrap_or_default();
            tracing::warn!(?role, handed, %configured, "the handed socket is not the one of the config: bound anew");
        }
        fits
    }

    /// Another handle of it.
    ///
    /// # Errors
    /// The process has too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener, file) => listener.try_clone().map(|listener| Self::Unix(listener, *file)),
        }
    }

    /// Hands it to the runtime of the thread.
    ///
    /// # Errors
    /// The runtime cannot take it.
    pub fn listen(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener).map(Listener::Tcp)
            }
            Self::Unix(listener, _) => {
                listener.set_nonblocking(true)?;
                tokio::net::UnixListener::from_std(listener).map(Listener::Unix)
            }
        }
    }

    /// Lets nobody begin to connect any more. Who is in the queue can be accepted; to close the socket would reset them.
    /// Who comes now is refused once the socket is closed: TCP tries until then.
    #[must_use]
    pub fn shut(&self) -> Shut {
        let shut = match self {
            Self::Tcp(listener) => SockRef::from(listener).attach_filter(&WITHOUT_SYN),
            // A file of this name that is not ours is where the next gateway listens.
            Self::Unix(..) => match self.address() {
                Ok(ListenAddress::Unix(path)) if self.has_its_file(&path) => fs::remove_file(path),
                _ => Ok(()),
            },
        };
        match (self, shut) {
            (Self::Tcp(_), Ok(())) => Shut::OnceHandshakesEnd,
            (Self::Unix(..), Ok(())) => Shut::Now,
            (_, Err(error)) => {
                // Recent kernels want CAP_NET_ADMIN for the filter.
                tracing::info!(%error, "the queue cannot be closed first: who connects in the last moment may be cut off");
                Shut::Now
            }
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    // The standard library asks for 128: a crowd that comes at once would keep others waiting for the second after
    // which their kernel tries again.
    rustix::net::listen(&listener, CLIENT_BACKLOG)?;
    // Each connection that is accepted has it too. Without it a client only costs more memory.
    let _ = SockRef::from(&listener).set_tcp_notsent_lowat(CLIENT_UNSENT_BYTES);
    Ok(listener)
}

/// Like a port on loopback, it is there for every user of the machine, nginx among them: the folder says who gets at it,
/// and a key is asked of everybody. (nginx makes its own sockets so too: `ngx_open_listening_sockets`.)
fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    socket_file::remove_dead(path)?;
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_came_before_is_served_and_nobody_comes_after() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut before = TcpStream::connect(address).unwrap();
        let listening = Listening::Tcp(listener.try_clone().unwrap());
        if listening.shut() == Shut::Now {
            println!("skipped: a filter on a socket needs CAP_NET_ADMIN here");
            return;
        }
        let refused = TcpStream::connect_timeout(&address, Duration::from_millis(200)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        let (mut accepted, _) = listener.accept().unwrap();
        before.write_all(b"asked").unwrap();
        let mut asked = [0; 5];
        accepted.read_exact(&mut asked).unwrap();
        accepted.write_all(b"answered").unwrap();
        drop(accepted);
        let mut answer = String::new();
        before.read_to_string(&mut answer).unwrap();
        assert_eq!((&asked, answer.as_str()), (b"asked", "answered"));
    }
}
