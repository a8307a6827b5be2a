//! Hands the listening sockets of a running gateway to the process that takes its place.
//!
//! The new process, which has read and checked its files, listens on a socket file beside the config. The old one, told
//! by SIGQUIT, connects and sends the sockets. Then each side speaks once more: the new one when it serves, and the old
//! one to say whether it lets go. Until then the old one serves as before, and whatever happens to the new one is no
//! matter to clients. A new one that is told no, or nothing, leaves; one whose old one is gone serves on.

mod wire;

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use socket2::SockRef;
use sq_shared::file_error;
use sq_shared::socket_file;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use crate::listen::{Listening, Role, Sockets};
use wire::{Accepted, LastWord, Offer, Offered, receive, send};

/// How long a new process waits for the sockets: for an operator who changes terminals and types the other command.
const GIVER_PATIENCE: Duration = Duration::from_secs(60);

/// How long the old process looks for a new one. It may have been started at the same moment, by the same script.
const TAKER_PATIENCE: Duration = Duration::from_secs(10);

/// How often it looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long one side waits for a word of the other. Between two of them lies the start of some threads.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Why the sockets were not given away.
#[derive(Debug, thiserror::Error)]
pub enum GiveError {
    /// Nobody waits for them.
    #[error("nobody took them within {} s", TAKER_PATIENCE.as_secs())]
    Nobody,
    /// The process that waits is another user's.
    #[error("a process of user {0} waits for them, and gets none")]
    Foreign(u32),
    /// The process that took them did not say that it serves.
    #[error("the process that took them does not serve: {0}")]
    Unanswered(io::Error),
}

/// Why the sockets were not taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Nothing can wait there.
    #[error("cannot wait for the running gateway at {0}: {text}; does another `serve --upgrade` wait?", text = file_error::text(.0, .1))]
    Wait(PathBuf, io::Error),
    /// Nobody gave any.
    #[error(
        "no running gateway handed its sockets over within {} s; send SIGQUIT to the one with this config, or, when \
         there is none, start without --upgrade",
        GIVER_PATIENCE.as_secs()
    )]
    Nobody,
    /// The last word was that it keeps them, or did not come.
    #[error("the running gateway did not let go of its sockets and serves on ({0}); try again")]
    Kept(io::Error),
}

/// What a new process has got.
pub struct Taken {
    /// The sockets, and what each is for.
    pub sockets: Vec<(Role, Listening)>,
    /// Who waits to be told.
    pub giver: Giver,
}

/// The old process, which serves until it is told that the new one does.
pub struct Giver(UnixStream);

/// The new process, which waits for the sockets.
pub struct Taker(UnixStream);

/// The file of the socket on which a new process waits; gone when it waits no longer.
struct Meeting {
    listener: UnixListener,
    path: PathBuf,
}

/// Looks for the process that waits at `path`. It has been told nothing yet, so this may be broken off.
///
/// # Errors
/// There is none, or it is another user's.
pub async fn find_taker(path: &Path) -> Result<Taker, GiveError> {
    let deadline = Instant::now() + TAKER_PATIENCE;
    let taker = loop {
        if let Ok(taker) = UnixStream::connect(path).await {
            break taker;
        }
        if Instant::now() >= deadline {
            return Err(GiveError::Nobody);
        }
        sleep(LOOK_INTERVAL).await;
    };
    match taker.peer_cred() {
        Ok(peer) if is_trusted(peer.uid()) => Ok(Taker(taker)),
        Ok(peer) => Err(GiveError::Foreign(peer.uid())),
        Err(error) => Err(GiveError::Unanswered(error)),
    }
}

impl Taker {
    /// Its process; `None` when the system does not say.
    pub fn pid(&self) -> Option<u32> {
        self.0.peer_cred().ok()?.pid()?.try_into().ok()
    }

    /// Gives it the sockets, and comes back when it serves, or after ten seconds. Gives what it has taken. To be awaited
    /// to its end: a new process that hears no last word takes this one for dead, and serves.
    ///
    /// # Errors
    /// It does not serve, and has been told to leave. This process has its sockets still.
    pub async fn give(self, sockets: &Sockets) -> Result<Vec<Role>, GiveError> {
        self.exchange(sockets).await.map_err(GiveError::Unanswered)
    }

    async fn exchange(self, sockets: &Sockets) -> io::Result<Vec<Role>> {
        let all = sockets.all();
        let mut offer = Offer::default();
        for (role, socket) in all {
            let address = socket.address()?.to_string();
            offer.sockets.push(Offered { role, address, file: socket.file() });
        }
        send(&self.0, &offer, &all.map(|(_, socket)| socket.as_fd())).await?;
        tracing::info!("the sockets are offered; serving until the other gateway does");
        let accepted = in_time(receive::<Accepted>(&self.0)).await;
        let told = send(&self.0, &LastWord::of(accepted.is_ok()), &[]).await;
        let (accepted, _) = accepted?;
        told?;
        Ok(accepted.taken)
    }
}

/// Waits at `path` for the sockets of the running gateway.
///
/// # Errors
/// Nobody gives any in time, or nothing can wait there.
pub async fn take(path: &Path) -> Result<Taken, TakeError> {
    let cannot_wait = |error| TakeError::Wait(path.to_owned(), error);
    let meeting = Meeting::open(path).map_err(cannot_wait)?;
    tracing::info!(patience_s = GIVER_PATIENCE.as_secs(), "send SIGQUIT to the running gateway now");
    timeout(GIVER_PATIENCE, meeting.taken()).await.map_err(|_| TakeError::Nobody)?.map_err(cannot_wait)
}

impl Meeting {
    /// The file is its owner's alone from the beginning: its mode is set before it has a name.
    fn open(path: &Path) -> io::Result<Self> {
        socket_file::remove_dead(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, 1)?;
        Ok(Self { listener: UnixListener::from_std(socket.into())?, path: path.to_owned() })
    }

    /// Waits for somebody who gives. Whoever only looks whether somebody is here gives nothing.
    async fn taken(&self) -> io::Result<Taken> {
        loop {
            let (giver, _) = self.listener.accept().await?;
            if !giver.peer_cred().is_ok_and(|peer| is_trusted(peer.uid())) {
                tracing::warn!("a process of another user wants to hand sockets over; none of it are taken");
                continue;
            }
            match offered(&giver).await {
                Ok(sockets) => return Ok(Taken { sockets, giver: Giver(giver) }),
                Err(error) => tracing::warn!(%error, "what came is no offer of sockets; waiting on"),
            }
        }
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        // Somebody may have tidied up; the next one does it otherwise.
        let _ = fs::remove_file(&self.path);
    }
}

async fn offered(giver: &UnixStream) -> io::Result<Vec<(Role, Listening)>> {
    let (offer, descriptors) = in_time(receive::<Offer>(giver)).await?;
    if offer.sockets.len() != descriptors.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    offer
        .sockets
        .into_iter()
        .zip(descriptors)
        .map(|(offered, descriptor)| Ok((offered.role, Listening::from_fd(descriptor, offered.file)?)))
        .collect()
}

impl Giver {
    /// Tells the old process that this one serves on these sockets, and waits until it lets go of them, or is gone.
    ///
    /// # Errors
    /// It has lost its patience, and serves on.
    pub async fn acknowledge(self, taken: &[Role]) -> Result<(), TakeError> {
        // One that is gone, or has said its last word already, does not hear this; how it ended is to be read.
        let _ = send(&self.0, &Accepted::of(taken), &[]).await;
        match self.last_word().await {
            Ok(word) if word.released => Ok(()),
            Ok(_) => Err(TakeError::Kept(io::Error::other("its log says why"))),
            Err(error) if is_end(&error) => {
                tracing::warn!("the gateway before is gone without a last word; its sockets are served here");
                Ok(())
            }
            Err(error) => Err(TakeError::Kept(error)),
        }
    }

    /// Waits for it, but not for ever. Whoever says it after that is told that nobody listens, so the two are never of
    /// two minds: a word that was said in time to be heard is heard.
    async fn last_word(&self) -> io::Result<LastWord> {
        let late = match in_time(receive::<LastWord>(&self.0)).await {
            Ok((word, _)) => return Ok(word),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => error,
            Err(error) => return Err(error),
        };
        SockRef::from(&self.0).shutdown(Shutdown::Read)?;
        receive::<LastWord>(&self.0).await.map(|(word, _)| word).map_err(|_| late)
    }
}

/// Whether the other process is gone: the kernel closes its sockets, whatever ended it.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

async fn in_time<T>(word: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(ANSWER_PATIENCE, word).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Whether a process of this user may have our sockets, or give us some: one of our own user, or root.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use sq_shared::config::{Config, ListenAddress};
    use sq_tests::root::Root;
    use sq_tests::setup::Setup;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn sockets_come_with_what_they_are_for() {
        let root = Root::new(&Setup::default());
        let config = Config::load(&root.config()).unwrap();
        let sockets = Sockets::bind(&config).unwrap();
        let path = root.join("meeting");
        block_on(async {
            let taking = async {
                let taken = take(&path).await.unwrap();
                assert!(!path.exists(), "the file stays when nobody waits");
                let sockets = Sockets::take_or_bind(&config, taken.sockets).unwrap();
                taken.giver.acknowledge(&sockets.taken).await.unwrap();
                sockets
            };
            let giving = async { find_taker(&path).await?.give(&sockets).await };
            let (taken, given) = tokio::join!(taking, giving);
            assert_eq!(given.unwrap(), [Role::Clients, Role::Admin]);
            for ((_, taken), (_, own)) in taken.all().into_iter().zip(sockets.all()) {
                assert_eq!(taken.address().unwrap(), own.address().unwrap());
            }
        });
    }

    #[test]
    fn a_socket_that_the_config_does_not_name_is_left() {
        let root = Root::new(&Setup::default());
        let mut config = Config::load(&root.config()).unwrap();
        let old = Sockets::bind(&config).unwrap();
        let handed = old.all().map(|(role, socket)| (role, socket.try_clone().unwrap())).into();
        config.gateway.listen = ListenAddress::Unix(root.join("clients.sock"));
        let new = Sockets::take_or_bind(&config, handed).unwrap();
        assert_eq!(new.taken, [Role::Admin]);
        assert_eq!(new.clients.address().unwrap(), config.gateway.listen);
    }

    #[test]
    fn a_taker_that_never_says_that_it_serves_has_nothing() {
        let root = Root::new(&Setup::default());
        let sockets = Sockets::bind(&Config::load(&root.config()).unwrap()).unwrap();
        let path = root.join("meeting");
        block_on(async {
            let leaving = async { drop(take(&path).await.unwrap()) };
            let giving = async { find_taker(&path).await?.give(&sockets).await };
            let ((), given) = tokio::join!(leaving, giving);
            assert!(matches!(given, Err(GiveError::Unanswered(_))), "{given:?}");
        });
    }

    #[test]
    fn a_giver_that_has_lost_its_patience_keeps_its_sockets() {
        let root = Root::new(&Setup::default());
        let path = root.join("meeting");
        block_on(async {
            let leaving = async {
                let taker = find_taker(&path).await.unwrap();
                send(&taker.0, &Offer::default(), &[]).await.unwrap();
                receive::<Accepted>(&taker.0).await.unwrap();
                send(&taker.0, &LastWord::of(false), &[]).await.unwrap();
            };
            let taking = async { take(&path).await.unwrap().giver.acknowledge(&[]).await };
            let (acknowledged, ()) = tokio::join!(taking, leaving);
            assert!(matches!(acknowledged, Err(TakeError::Kept(_))), "{acknowledged:?}");
        });
    }

    #[test]
    fn one_that_never_says_the_last_word_cannot_say_it_later() {
        let (giver, taker) = std::os::unix::net::UnixStream::pair().unwrap();
        block_on(async {
            let [giver, taker] = [giver, taker].map(|end| {
                end.set_nonblocking(true).unwrap();
                UnixStream::from_std(end).unwrap()
            });
            let acknowledged = Giver(giver).acknowledge(&[]).await;
            assert!(matches!(acknowledged, Err(TakeError::Kept(_))), "{acknowledged:?}");
            assert!(send(&taker, &LastWord::of(true), &[]).await.is_err(), "it believes that it was heard");
        });
    }

    #[test]
    fn only_its_owner_may_come_to_a_meeting_and_one_that_died_is_no_hindrance() {
        let root = Root::empty();
        let path = root.join("meeting");
        block_on(async {
            let meeting = Meeting::open(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(Meeting::open(&path).is_err(), "two wait at one place");
            drop(meeting);
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            assert!(path.exists());
            Meeting::open(&path).unwrap();
        });
    }
}
