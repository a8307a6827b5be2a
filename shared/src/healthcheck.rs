//! What a container's health check calls: one GET, exit 0 when the answer is a success. And the question whether a server
//! of ours has an address.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::config::ListenAddress;

/// How long a health check waits before it counts as failed: less than Docker's default of 30 s.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long [`ask`] waits for each step.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// More than the answer to `/health` has.
const ANSWER_BYTES: u64 = 16 << 10;

/// What every `/health` of ours says.
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
///
/// # Errors
/// There is no answer, or not that of a server of ours.
pub fn check_address(address: &ListenAddress) -> Result<(), String> {
    match (ask(address), address) {
        (Answer::Healthy, _) => Ok(()),
        (Answer::Other, address) => {
            Err(format!("{address}: what answers is no server of ours, or it is not well"))
        }
        // It may be slow. If not, the library's text says more than ours could.
        (_, ListenAddress::Tcp(address)) => check(&format!("http://{}/health", local(*address))),
        (Answer::None, address) => Err(format!("{address}: no server listens")),
        (Answer::Silent, address) => Err(format!("{address}: no answer")),
    }
}

/// What has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A server of ours, and it is well.
    Healthy,
    /// Another program.
    Other,
    /// Something that connects, and does not answer in time.
    Silent,
    /// Nothing that can be connected to.
    None,
}

/// Asks `/health` there.
pub fn ask(address: &ListenAddress) -> Answer {
    let answer = match address {
        ListenAddress::Tcp(address) => {
            let Ok(stream) = TcpStream::connect_timeout(&local(*address), ASK_TIMEOUT) else {
                return Answer::None;
            };
            let limited =
                stream.set_read_timeout(Some(ASK_TIMEOUT)).and(stream.set_write_timeout(Some(ASK_TIMEOUT)));
            limited.and_then(|()| exchange(stream))
        }
        ListenAddress::Unix(path) => {
            let Ok(stream) = UnixStream::connect(path) else { return Answer::None };
            let limited =
                stream.set_read_timeout(Some(ASK_TIMEOUT)).and(stream.set_write_timeout(Some(ASK_TIMEOUT)));
            limited.and_then(|()| exchange(stream))
        }
    };
    match answer {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") && answer.contains(HEALTHY) => Answer::Healthy,
        // At its end a server of ours may close without a word, or say that it stops.
        Ok(answer) if answer.is_empty() || answer.starts_with("HTTP/1.1 503 ") => Answer::Silent,
        Ok(_) => Answer::Other,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Answer::Silent,
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
            Answer::Silent
        }
        Err(_) => Answer::Other,
    }
}

fn exchange(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Where this machine reaches what listens on all of its addresses.
fn local(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
