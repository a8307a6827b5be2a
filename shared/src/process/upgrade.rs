//! An upgrade: a new process, the successor, replaces the running one, its predecessor, and takes its sockets over without
//! closing them.
//!
//! The successor is started with `--upgrade`, reads and checks its files, and listens on a socket file beside the config.
//! The predecessor connects when SIGQUIT tells it to. Each checks that the other runs as its own user or root. Then:
//!
//! | from | message | meaning |
//! |---|---|---|
//! | predecessor | offer | the sockets, and what the program says of them; nothing changes yet |
//! | successor | accept | it has all that it needs |
//! | predecessor | commit, or abort | the sockets are the successor's; or they are not, and it exits |
//!
//! Until it has sent the commit the predecessor serves as before; without an accept in time it aborts and goes on. Told to
//! abort, or told nothing in time, the successor exits, unless the predecessor has died. So if one of them dies, whenever
//! that is, the other one serves.

mod launch;
mod wire;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use crate::file_id::FileId;
use crate::{file_error, socket_file};
pub use launch::launch;
use wire::Connection;

/// The version of the messages. The gateway's first one had 1, the pool's had no number.
const VERSION: u32 = 2;

/// How long a successor waits for the offer: an operator changes terminals and types the other command.
const WAIT_FOR_OFFER: Duration = Duration::from_secs(60);

/// How long a predecessor looks for its successor, and how often: a script may start them at the same moment.
const WAIT_FOR_SUCCESSOR: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long each waits for the other's next message. A successor starts its threads in between.
const WAIT_FOR_MESSAGE: Duration = Duration::from_secs(10);

/// How long the end of a process may come after that of its connections.
const EXIT_TIME: Duration = Duration::from_secs(1);

/// Why the sockets are still this process's.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// No process that may have them waits for them.
    #[error("no process waits for the sockets at {path}: {1}", path = .0.display())]
    NoSuccessor(PathBuf, io::Error),
    /// It did not accept them in time.
    #[error("the new process did not accept the sockets: {0}")]
    NotAccepted(io::Error),
}

/// Why the sockets were not taken over.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The socket file cannot be made.
    #[error("failed to listen on {path} for the running process: {text}", path = .0.display(), text = listen_text(.0, .1))]
    Listen(PathBuf, io::Error),
    /// No offer came.
    #[error(
        "no running process offered its sockets within {} s; send SIGQUIT to the one with this config, or, if there is \
         none, start without --upgrade",
        WAIT_FOR_OFFER.as_secs()
    )]
    NoOffer,
    /// The offer has another form.
    #[error(
        "the running process is of a version that this one cannot upgrade ({0}); it serves on. Restart instead: stop it, \
         then start this one without --upgrade"
    )]
    OtherVersion(String),
    /// The predecessor aborted, or said nothing more.
    #[error("the running process keeps its sockets and serves on ({0}); try again")]
    Aborted(io::Error),
}

fn listen_text(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "another process with --upgrade waits there".to_owned(),
        _ => file_error::text(path, error),
    }
}

/// What a predecessor sends first. The version is read before anything else.
#[derive(Serialize)]
struct Offer<P> {
    version: u32,
    descriptors: usize,
    payload: P,
}

/// What a predecessor sends last.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Decision {
    Commit,
    Abort,
}

/// The new process, as the running one sees it.
#[derive(Debug)]
pub struct Successor {
    connection: Connection,
    /// Its process.
    pub pid: Pid,
}

/// The running process, as the new one sees it.
#[derive(Debug)]
pub struct Predecessor {
    connection: Connection,
    /// `None` when it had ended before it could be watched.
    process: Option<OwnedFd>,
}

/// Looks for the process that waits at this path, for ten seconds. Nothing is sent to it, so this may be given up.
///
/// # Errors
/// No process waits there in time, or it runs as another user.
pub async fn find_successor(path: &Path) -> Result<Successor, OfferError> {
    let deadline = Instant::now() + WAIT_FOR_SUCCESSOR;
    let stream = loop {
        match UnixStream::connect(path).await {
            Ok(stream) => break stream,
            Err(error) if Instant::now() >= deadline => {
                return Err(OfferError::NoSuccessor(path.to_owned(), error));
            }
            Err(_) => sleep(RETRY_INTERVAL).await,
        }
    };
    let pid = peer_of(&stream).map_err(|error| OfferError::NoSuccessor(path.to_owned(), error))?;
    Ok(Successor { connection: Connection::new(stream), pid })
}

impl Successor {
    /// Offers these descriptors, and gives the reply with which they were accepted, once they are the successor's. Await
    /// it to its end: a successor whose predecessor sends no decision gives up.
    ///
    /// # Errors
    /// It did not accept them within ten seconds. The sockets are this process's, as if nothing had been offered.
    pub async fn offer<R: DeserializeOwned>(
        mut self,
        payload: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<R, OfferError> {
        let failed = OfferError::NotAccepted;
        let offer = Offer { version: VERSION, descriptors: descriptors.len(), payload };
        in_time(self.connection.send(&offer, descriptors)).await.map_err(failed)?;
        tracing::info!("the sockets are offered; serving until the new process accepts them");
        let accepted = in_time(self.connection.receive()).await;
        let reply = accepted.and_then(|(line, _)| Ok(serde_json::from_slice(&line)?));
        let decision = if reply.is_ok() { Decision::Commit } else { Decision::Abort };
        let decided = self.connection.send(&decision, &[]).await;
        let reply = reply.map_err(failed)?;
        decided.map_err(failed)?;
        Ok(reply)
    }
}

/// Waits at this path for the running process to offer its sockets. Gives what it says, and their descriptors.
///
/// # Errors
/// No offer comes within a minute, or one of another version, or the path cannot be used.
pub async fn wait_for_offer<P: DeserializeOwned>(
    path: &Path,
) -> Result<(P, Vec<OwnedFd>, Predecessor), AcceptError> {
    let failed = |error| AcceptError::Listen(path.to_owned(), error);
    let socket = UpgradeSocket::bind(path).map_err(failed)?;
    tracing::info!(
        path = %path.display(),
        wait_s = WAIT_FOR_OFFER.as_secs(),
        "waiting for the running process; send it SIGQUIT now"
    );
    let offered = async {
        loop {
            let (stream, _) = socket.listener.accept().await.map_err(failed)?;
            match Predecessor::receive_offer(stream).await {
                Ok((line, descriptors, predecessor)) => {
                    let payload = payload_of(&line, descriptors.len()).map_err(AcceptError::OtherVersion)?;
                    return Ok((payload, descriptors, predecessor));
                }
                Err(error) => tracing::warn!(%error, "a connection brought no offer; send SIGQUIT again"),
            }
        }
    };
    timeout(WAIT_FOR_OFFER, offered).await.unwrap_or(Err(AcceptError::NoOffer))
}

fn payload_of<P: DeserializeOwned>(line: &[u8], received: usize) -> Result<P, String> {
    let mut offer: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    match offer.get("version") {
        Some(version) if *version == VERSION => {}
        Some(version) => return Err(format!("its upgrade protocol is {version}, not {VERSION}")),
        None => return Err("its upgrade protocol has no version".to_owned()),
    }
    let offered = offer.get("descriptors").and_then(serde_json::Value::as_u64).unwrap_or_default();
    if offered != received as u64 {
        return Err(format!("{received} of its {offered} descriptors arrived"));
    }
    let payload = offer.get_mut("payload").map(serde_json::Value::take).unwrap_or_default();
    serde_json::from_value(payload).map_err(|error| error.to_string())
}

impl Predecessor {
    async fn receive_offer(stream: UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>, Self)> {
        let process = match pidfd_open(peer_of(&stream)?, PidfdFlags::empty()) {
            Ok(process) => Some(process),
            Err(Errno::SRCH) => None,
            Err(error) => return Err(error.into()),
        };
        let mut predecessor = Self { connection: Connection::new(stream), process };
        let (line, descriptors) = in_time(predecessor.connection.receive()).await?;
        Ok((line, descriptors, predecessor))
    }

    /// Says that this process has what it needs, and waits for the decision. From then on the sockets are its own.
    ///
    /// # Errors
    /// The predecessor serves on, and this process is to exit.
    pub async fn accept(mut self, reply: &impl Serialize) -> Result<(), AcceptError> {
        // It fails when the predecessor has died, or has given up already. The decision tells which.
        let _ = self.connection.send(reply, &[]).await;
        match self.decision().await {
            Ok(Decision::Commit) => Ok(()),
            Ok(Decision::Abort) => Err(AcceptError::Aborted(io::Error::other("its log says why"))),
            Err(error) if is_end(&error) && self.has_exited().await => {
                tracing::warn!("the running process exited before it confirmed the upgrade; taking over");
                Ok(())
            }
            Err(error) => Err(AcceptError::Aborted(error)),
        }
    }

    /// Waits for the decision, but not longer than a message may take. A predecessor that commits later must not believe
    /// that it was heard.
    async fn decision(&mut self) -> io::Result<Decision> {
        let line = match in_time(self.connection.receive()).await {
            Err(late) if late.kind() == ErrorKind::TimedOut => {
                self.connection.stop_receiving()?;
                self.connection.receive().await.map_err(|_| late)
            }
            received => received,
        };
        Ok(serde_json::from_slice(&line?.0)?)
    }

    /// Whether its process has ended, or does so in a moment. A connection may end while its process lives.
    async fn has_exited(self) -> bool {
        let Some(process) = self.process else { return true };
        match ProcessExit::watch(process) {
            Ok(exit) => timeout(EXIT_TIME, exit.wait()).await.is_ok(),
            Err(_) => false,
        }
    }
}

/// Whether the other process has closed the connection: the kernel does so, whatever ended the process.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
}

async fn in_time<T>(message: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(WAIT_FOR_MESSAGE, message).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// The process at the other end.
///
/// # Errors
/// It is another user's: it gets no sockets, and none are taken from it.
fn peer_of(stream: &UnixStream) -> io::Result<Pid> {
    let peer = stream.peer_cred()?;
    let (uid, own) = (peer.uid(), rustix::process::geteuid().as_raw());
    if uid != own && uid != 0 {
        return Err(io::Error::other(format!(
            "the process there runs as user {uid}, this one as user {own}"
        )));
    }
    let pid = peer.pid().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("the process there is not visible from here"))
}

/// The socket file at which a successor waits. The file is removed when it waits no longer.
struct UpgradeSocket {
    listener: UnixListener,
    path: PathBuf,
    file: Option<FileId>,
}

impl UpgradeSocket {
    /// Its mode is set before it has a name: the file is its owner's alone from the first moment.
    fn bind(path: &Path) -> io::Result<Self> {
        // Left by a process that was killed while it waited.
        socket_file::remove_dead(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        let file = socket_file::id(path);
        rustix::net::listen(&socket, 1)?;
        Ok(Self { listener: UnixListener::from_std(socket.into())?, path: path.to_owned(), file })
    }
}

impl Drop for UpgradeSocket {
    fn drop(&mut self) {
        // Another process may have its own socket there by now.
        if self.file.is_some() && socket_file::id(&self.path) == self.file {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The end of a process that need not be a child of this one.
pub struct ProcessExit(AsyncFd<OwnedFd>);

impl ProcessExit {
    /// Watches the process of a descriptor from `pidfd_open`. Call it inside a runtime.
    #[expect(
        deprecated,
        reason = "the new constructor is unsafe for descriptors that may be closed; an owned one cannot be"
    )]
    pub fn watch(process: OwnedFd) -> io::Result<Self> {
        AsyncFd::with_interest(process, Interest::READABLE).map(Self)
    }

    /// Ends when the process has ended, with all its threads and descriptors.
    pub async fn wait(&self) {
        // It fails only when the runtime shuts down.
        let _ = self.0.readable().await;
    }
}

#[cfg(test)]
mod tests;
