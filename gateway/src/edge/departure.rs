//! Whether a client is still there once it has sent the last that it will. A half-closed connection looks the same from here
//! whether its client waits for the answer (RFC 9112, 9.6) or has gone: only what is written to it tells, for the system of
//! a client that has gone answers it with a reset. So the client is sent the beginning of its answer, which is the same
//! for every answer, a byte at a time.

use std::io;
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::net::{TcpStream, UnixStream};

use super::ClientStream;
use super::pace::{Paced, Socket};

/// How long a half-closed client is believed to wait before it is sent the first byte. Nearly every answer comes sooner, and
/// leaves whole.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// How often each pause is doubled at most. With a byte each, the last one is a minute after the first.
const MOST_DOUBLINGS: u32 = 8;

/// A client's connection, whatever its socket.
enum Client<'s> {
    Tcp(&'s Paced<TcpStream>),
    Unix(&'s Paced<UnixStream>),
}

/// How many bytes of all that the client has sent have been read.
pub fn read_bytes(stream: &Stream) -> u64 {
    match client_of(stream) {
        Some(Client::Tcp(client)) => client.read_bytes(),
        Some(Client::Unix(client)) => client.read_bytes(),
        None => 0,
    }
}

/// Whether there may be something to read from a client, the end of its side among it.
pub fn has_news(stream: &Stream) -> bool {
    match client_of(stream) {
        Some(Client::Tcp(client)) => client.has_news(),
        Some(Client::Unix(client)) => client.has_news(),
        None => false,
    }
}

/// Ends when the connection is known to be broken, from which on nothing reaches its client.
pub async fn broken(stream: &Stream) {
    match client_of(stream) {
        Some(Client::Tcp(client)) => client.broken().await,
        Some(Client::Unix(client)) => client.broken().await,
        None => std::future::pending().await,
    }
}

/// Ends when a client is gone that has sent the last that it will, and to which no answer has begun.
pub async fn gone(stream: &Stream) {
    match client_of(stream) {
        Some(Client::Tcp(client)) => probe(client).await,
        Some(Client::Unix(client)) => probe(client).await,
        None => std::future::pending().await,
    }
}

async fn probe<S: Socket>(client: &Paced<S>) {
    loop {
        let doublings = u32::try_from(client.ahead_bytes()).unwrap_or(MOST_DOUBLINGS).min(MOST_DOUBLINGS);
        tokio::select! {
            () = client.broken() => return,
            () = tokio::time::sleep(FIRST_PAUSE * (1 << doublings)) => {}
        }
        let sent: io::Result<()> = client.write_ahead();
        if sent.is_err() {
            return;
        }
    }
}

fn client_of(stream: &Stream) -> Option<Client<'_>> {
    let client = (**stream).as_any();
    if let Some(tcp) = client.downcast_ref::<ClientStream<TcpStream>>() {
        return Some(Client::Tcp(tcp.transport().get_ref()));
    }
    client.downcast_ref::<ClientStream<UnixStream>>().map(|unix| Client::Unix(unix.transport().get_ref()))
}
