//! A client's connection below pingora's session, and what its socket tells beyond reads and writes.
//!
//! A client that has shut down its sending side looks the same whether it waits for the answer (RFC 9112, 9.6) or has
//! disconnected. Only a write tells: the system of a client that has gone answers it with a reset. Such a client is
//! therefore sent the first bytes of its answer, which every answer begins with, one at a time.

use std::os::fd::AsRawFd;
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::io::BufWriter;
use tokio::net::{TcpStream, UnixStream};

use super::SocketStream;
use super::client_socket::{ClientSocket, Socket};

/// Holds an answer's head and a short scroll, which leave in one packet. Longer writes bypass the buffer.
const WRITE_BUFFER_BYTES: usize = 2048;

/// The pause before the first byte that probes a half-closed client. Nearly every answer comes sooner, and leaves whole.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// How often the pause is doubled. With one byte per pause, the last byte goes out about a minute after the first.
const MOST_DOUBLINGS: u32 = 8;

type ClientStream<S> = SocketStream<BufWriter<ClientSocket<S>>>;

/// A client's socket, of either kind.
enum Client<'s> {
    Tcp(&'s ClientSocket<TcpStream>),
    Unix(&'s ClientSocket<UnixStream>),
}

/// Wraps an accepted socket for pingora's session.
pub(crate) fn client_stream<S: Socket + AsRawFd + 'static>(socket: S) -> Stream {
    let fd = socket.as_raw_fd();
    Box::new(ClientStream::new(BufWriter::with_capacity(WRITE_BUFFER_BYTES, ClientSocket::new(socket)), fd))
}

/// Makes the connection close with a reset, because an answer that only the connection's end delimits was cut off. A Unix
/// socket has no reset.
pub(crate) fn reset_on_close(stream: &Stream) {
    if let Some(Client::Tcp(client)) = client_of(stream) {
        client.socket.reset_on_close();
    }
}

/// How many bytes have been read from the client on this connection.
pub(crate) fn bytes_read(stream: &Stream) -> u64 {
    match client_of(stream) {
        Some(Client::Tcp(client)) => client.bytes_read,
        Some(Client::Unix(client)) => client.bytes_read,
        None => 0,
    }
}

/// Whether there may be something to read from the client, such as the end of its sending side.
pub(crate) fn may_have_input(stream: &Stream) -> bool {
    match client_of(stream) {
        Some(Client::Tcp(client)) => client.socket.may_have_input(),
        Some(Client::Unix(client)) => client.socket.may_have_input(),
        None => false,
    }
}

/// Completes when the connection is broken in both directions.
pub(crate) async fn broken(stream: &Stream) {
    match client_of(stream) {
        Some(Client::Tcp(client)) => client.socket.broken().await,
        Some(Client::Unix(client)) => client.socket.broken().await,
        None => std::future::pending().await,
    }
}

/// Completes when a half-closed client to which no answer has begun turns out to have disconnected.
pub(crate) async fn half_closed_client_gone(stream: &Stream) {
    match client_of(stream) {
        Some(Client::Tcp(client)) => probe(client).await,
        Some(Client::Unix(client)) => probe(client).await,
        None => std::future::pending().await,
    }
}

async fn probe<S: Socket>(client: &ClientSocket<S>) {
    loop {
        let doublings = u32::try_from(client.bytes_ahead()).unwrap_or(MOST_DOUBLINGS).min(MOST_DOUBLINGS);
        tokio::select! {
            () = client.socket.broken() => return,
            () = tokio::time::sleep(FIRST_PAUSE * (1 << doublings)) => {}
        }
        if client.write_ahead().is_err() {
            return;
        }
    }
}

fn client_of(stream: &Stream) -> Option<Client<'_>> {
    let client = (**stream).as_any();
    if let Some(tcp) = client.downcast_ref::<ClientStream<TcpStream>>() {
        return Some(Client::Tcp(tcp.transport.get_ref()));
    }
    client.downcast_ref::<ClientStream<UnixStream>>().map(|unix| Client::Unix(unix.transport.get_ref()))
}
