//! The accept queue of a listening socket.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use pingora::protocols::Stream;
use socket2::Socket;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::stream::client::client_stream;

/// A listening socket, registered with the runtime of its thread.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Tcp(IpAddr),
    /// A program on this machine that may open the socket file, and so a trusted proxy.
    Unix,
}

impl Listener {
    /// Waits for a connection.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(socket, peer)| from_tcp(socket, peer)),
            Self::Unix(listener) => listener.accept().await.map(|(socket, _)| from_unix(socket)),
        }
    }

    /// The connections that are in the queue, without waiting for more.
    pub(crate) fn into_queue(self) -> io::Result<impl Iterator<Item = io::Result<(Stream, Peer)>>> {
        let listener: Socket = match self {
            Self::Tcp(listener) => listener.into_std()?.into(),
            Self::Unix(listener) => listener.into_std()?.into(),
        };
        let accept = move || {
            let (socket, peer) = listener.accept()?;
            socket.set_nonblocking(true)?;
            match peer.as_socket() {
                Some(peer) => Ok(from_tcp(TcpStream::from_std(socket.into())?, peer)),
                None => Ok(from_unix(UnixStream::from_std(socket.into())?)),
            }
        };
        let is_queued = |next: &io::Result<_>| {
            !next.as_ref().is_err_and(|error: &io::Error| error.kind() == ErrorKind::WouldBlock)
        };
        Ok(std::iter::repeat_with(accept).take_while(is_queued))
    }
}

fn from_tcp(socket: TcpStream, peer: SocketAddr) -> (Stream, Peer) {
    // If this fails, answers are only slower.
    let _ = socket.set_nodelay(true);
    (client_stream(socket), Peer::Tcp(peer.ip()))
}

fn from_unix(socket: UnixStream) -> (Stream, Peer) {
    (client_stream(socket), Peer::Unix)
}

impl Peer {
    /// Whether the peer is a proxy that forwards for others, so that its own address does not identify the client.
    pub(crate) fn is_trusted(self, trusted: &[IpNet]) -> bool {
        self == Self::Unix || trusted.iter().any(|network| network.contains(&self.ip()))
    }

    /// The address to charge when no better one is known. A Unix socket counts as this machine.
    pub(crate) fn ip(self) -> IpAddr {
        match self {
            Self::Tcp(address) => address.to_canonical(),
            Self::Unix => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}
