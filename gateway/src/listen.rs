//! The listening sockets: bound here or inherited from the process that this one replaces. One can be closed without
//! resetting the clients that are in its queue or have begun to connect.

mod accept;

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use socket2::{Domain, SockFilter, SockRef, Socket};
use sq_shared::config::{Config, ListenAddress};
use sq_shared::file_id::FileId;
use sq_shared::limits::{CLIENT_BACKLOG, CLIENT_UNSENT_BYTES};
use sq_shared::listen_error::{self, Settings};
use sq_shared::socket_file;
use tokio::net::{TcpListener, UnixListener};

pub(crate) use accept::{Listener, Peer};

// A filter's operations (linux/filter.h).
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const SKIP_UNLESS_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN_BYTES: u16 = 0x06; // BPF_RET | BPF_K

/// Where a TCP header has its flags, and SYN among them (RFC 9293, 3.1).
const FLAGS_OFFSET: u32 = 13;
const SYN: u32 = 0x02;

/// A filter that drops every SYN and passes everything else. On a TCP socket a filter sees packets from the TCP header on.
/// The last packet of a handshake must pass, because its sender considers itself connected.
const WITHOUT_SYN: [SockFilter; 4] = [
    SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_OFFSET),
    SockFilter::new(SKIP_UNLESS_SET, 0, 1, SYN),
    SockFilter::new(RETURN_BYTES, 0, 0, 0),
    SockFilter::new(RETURN_BYTES, 0, 0, u32::MAX),
];

/// Connecting to a socket file takes write permission (unix(7)).
const SOCKET_MODE: u32 = 0o666;

/// A socket could not be bound. The text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BindError(String);

/// What a listening socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Clients,
    Admin,
}

impl Role {
    /// The name in log lines.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Admin => "admin",
        }
    }

    /// The config field that holds its address.
    fn settings(self) -> Settings {
        Settings::one(match self {
            Self::Clients => "[gateway] listen",
            Self::Admin => "[gateway] admin_listen",
        })
    }
}

/// A listening socket, TCP or Unix.
#[derive(Debug)]
pub(crate) struct Listening {
    socket: Socket,
    /// The file that a Unix socket had when it was bound.
    pub file: Option<FileId>,
}

/// The listening sockets of a gateway.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub clients: Listening,
    pub admin: Listening,
    /// Which of them were inherited, not bound here.
    pub taken: Vec<Role>,
}

impl Sockets {
    pub(crate) fn bind(config: &Config) -> Result<Self, BindError> {
        Self::take_or_bind(config, Vec::new())
    }

    /// Keeps the inherited sockets that match the config, and binds the others.
    pub(crate) fn take_or_bind(
        config: &Config,
        inherited: Vec<(Role, Listening)>,
    ) -> Result<Self, BindError> {
        let mut taken = Vec::new();
        let (mut clients, mut admin) = (None, None);
        for (role, socket) in inherited {
            match role {
                Role::Clients => clients = Some(socket),
                Role::Admin => admin = Some(socket),
            }
        }
        let mut choose = |role, inherited: Option<Listening>, configured: &ListenAddress| match inherited
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

    pub(crate) fn all(&self) -> [(Role, &Listening); 2] {
        [(Role::Clients, &self.clients), (Role::Admin, &self.admin)]
    }
}

impl Listening {
    fn bind(role: Role, address: &ListenAddress) -> Result<Self, BindError> {
        let bound = match address {
            ListenAddress::Tcp(address) => bind_tcp(*address),
            ListenAddress::Unix(path) => bind_unix(path),
        };
        bound.map_err(|error| BindError(listen_error::explain(address, &error, role.settings())))
    }

    /// A socket from another process, which has sent along its file.
    pub(crate) fn from_fd(socket: OwnedFd, file: Option<FileId>) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let is_known = [Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&socket.domain()?);
        if is_known { Ok(Self { socket, file }) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Its address. With port 0 in the config, this has the port that the system chose.
    pub(crate) fn address(&self) -> io::Result<ListenAddress> {
        let address = self.socket.local_addr()?;
        let path = || address.as_pathname().map(|path| ListenAddress::Unix(path.to_owned()));
        let address = address.as_socket().map(ListenAddress::Tcp).or_else(path);
        address.ok_or(io::ErrorKind::AddrNotAvailable.into())
    }

    fn has_its_file(&self, path: &Path) -> bool {
        self.file.is_some() && self.file == socket_file::id(path)
    }

    /// Whether it matches the config. Its file may have been replaced or deleted since it was bound.
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
            let inherited = self.address().map(|address| address.to_string()).unwrap_or_default();
            tracing::warn!(?role, inherited, %configured, "inherited socket doesn't match the config; binding a new one");
        }
        fits
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, file: self.file })
    }

    /// Registers it with the runtime of this thread.
    pub(crate) fn listen(self) -> io::Result<Listener> {
        self.socket.set_nonblocking(true)?;
        match self.address()? {
            ListenAddress::Tcp(_) => TcpListener::from_std(self.socket.into()).map(Listener::Tcp),
            ListenAddress::Unix(_) => UnixListener::from_std(self.socket.into()).map(Listener::Unix),
        }
    }

    /// Stops new connections. Those in the queue can still be accepted, where closing the socket would reset them. A
    /// client that connects now retries, as TCP does, and is refused once the socket is closed. Returns whether handshakes that
    /// have begun still join the queue, so that they are worth a wait.
    #[must_use]
    pub(crate) fn shut(&self) -> bool {
        let address = self.address();
        let shut = match &address {
            Ok(ListenAddress::Tcp(_)) => self.socket.attach_filter(&WITHOUT_SYN),
            Ok(ListenAddress::Unix(path)) if self.has_its_file(path) => fs::remove_file(path),
            // If the file is not ours any more, the next gateway listens on it.
            _ => Ok(()),
        };
        if let Err(error) = &shut {
            // Recent kernels require CAP_NET_ADMIN for the filter.
            tracing::info!(%error, "failed to stop new connections before the close; the last ones may be reset");
        }
        shut.is_ok() && matches!(address, Ok(ListenAddress::Tcp(_)))
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listening> {
    let listener = std::net::TcpListener::bind(address)?;
    // The standard library's backlog is 128. When it overflows, a client's kernel only retries after a second.
    rustix::net::listen(&listener, CLIENT_BACKLOG)?;
    // Accepted connections inherit this. If it fails, a slow client only costs more memory.
    let _ = SockRef::from(&listener).set_tcp_notsent_lowat(CLIENT_UNSENT_BYTES);
    Ok(Listening { socket: listener.into(), file: None })
}

/// Like a port on loopback, the socket is open to every user of the machine, such as nginx's: its folder restricts access,
/// and every request needs a key. (nginx creates its own sockets the same way: `ngx_open_listening_sockets`.)
fn bind_unix(path: &Path) -> io::Result<Listening> {
    socket_file::remove_dead(path)?;
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    Ok(Listening { socket: listener.into(), file: socket_file::id(path) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn queued_connections_are_served_and_new_ones_are_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut before = TcpStream::connect(address).unwrap();
        let listening = Listening { socket: listener.try_clone().unwrap().into(), file: None };
        if !listening.shut() {
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
