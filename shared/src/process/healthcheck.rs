//! The health check of a container: one GET, exit 0 when the answer is a success. Also finds out whether a server of
//! ours listens on an address.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::config::ListenAddress;
use crate::socket_file::{self, Connected};

/// How long a health check waits before it counts as failed: less than Docker's default of 30 s.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The time limit of [`ask`].
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait before a full queue is tried again.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// Longer than any answer to `/health`.
const ANSWER_BYTES: usize = 16 << 10;

/// What every `/health` of ours contains.
const HEALTHY: &str = "\"status\":\"ok\"";

/// Asks a URL once.
///
/// # Errors
/// It does not answer in five seconds, or with a status other than 2xx; the text says which.
pub fn check(url: &str) -> Result<(), String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(HEALTHCHECK_TIMEOUT)).build();
    let answer = ureq::Agent::new_with_config(config).get(url).call();
    answer.map(|_| ()).map_err(|error| format!("{url}: {error}"))
}

/// Asks the server of an address for its `/health`.
pub fn check_address(address: &ListenAddress) -> Result<(), String> {
    match (ask(address), address) {
        (Answer::Healthy, _) => Ok(()),
        (Answer::Other, address) => {
            Err(format!("{address}: what answers is no server of ours, or it is not well"))
        }
        // It may be slow. Otherwise the library's text says more than ours could.
        (_, ListenAddress::Tcp(address)) => check(&format!("http://{}/health", local(*address))),
        (Answer::None, address) => Err(format!("{address}: no server listens")),
        (Answer::Full, address) => {
            Err(format!("{address}: the server's queue is full, it accepts no connection"))
        }
        (Answer::Silent, address) => Err(format!("{address}: no answer")),
    }
}

/// What listens on an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A server of ours, and it is well.
    Healthy,
    /// Another program.
    Other,
    /// Something that connects, and does not answer in time.
    Silent,
    /// Something that listens, and does not accept: its queue is full.
    Full,
    /// Nothing that can be connected to.
    None,
}

/// Asks for `/health`, within [`ASK_TIMEOUT`], whatever listens.
pub fn ask(address: &ListenAddress) -> Answer {
    let deadline = Instant::now() + ASK_TIMEOUT;
    let answer = match address {
        ListenAddress::Tcp(address) => match TcpStream::connect_timeout(&local(*address), ASK_TIMEOUT) {
            Ok(stream) => exchange(stream, deadline),
            Err(error) if error.kind() == ErrorKind::TimedOut => return Answer::Full,
            Err(_) => return Answer::None,
        },
        ListenAddress::Unix(path) => match connect(path, deadline) {
            Ok(Connected::To(stream)) => exchange(stream, deadline),
            Ok(Connected::QueueIsFull) => return Answer::Full,
            // The socket file of a server that was killed refuses connections.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Answer::None;
            }
            Err(error) => Err(error),
        },
    };
    match answer {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") && answer.contains(HEALTHY) => Answer::Healthy,
        // A server of ours that stops may close without an answer, or answer that it stops.
        Ok(answer) if answer.is_empty() || answer.starts_with("HTTP/1.1 503 ") => Answer::Silent,
        Ok(_) => Answer::Other,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Answer::Silent,
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
            Answer::Silent
        }
        Err(_) => Answer::Other,
    }
}

/// A queue that is full may have room a moment later.
fn connect(path: &Path, deadline: Instant) -> io::Result<Connected> {
    loop {
        match socket_file::connect(path)? {
            Connected::QueueIsFull if Instant::now() < deadline => std::thread::sleep(CONNECT_PAUSE),
            connected => return Ok(connected),
        }
    }
}

fn exchange(mut stream: impl Read + Write + AsFd, deadline: Instant) -> io::Result<String> {
    let limit = |stream: BorrowedFd<'_>| -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        set_socket_timeout(stream, Timeout::Recv, Some(left))?;
        Ok(set_socket_timeout(stream, Timeout::Send, Some(left))?)
    };
    limit(stream.as_fd())?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while answer.len() < ANSWER_BYTES {
        // A server that sends a byte now and then must not take longer.
        limit(stream.as_fd())?;
        match stream.read(&mut piece)? {
            0 => break,
            bytes => answer.extend(piece.iter().take(bytes)),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The address to connect to when a server listens on all addresses.
fn local(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
