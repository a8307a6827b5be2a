//! How a pool hands its sockets to the one that was started with `--upgrade`.
//!
//! The new pool listens on a Unix socket beside the config; the old one connects when it gets SIGQUIT. Both check that
//! the other is the same user. Then, on that connection:
//!
//! | from | what |
//! |---|---|
//! | old | every listening socket (`SCM_RIGHTS`), in messages of one byte, [`SOCKETS`] |
//! | old | [`END_OF_SOCKETS`], and a line of JSON: the workers that still run |
//! | new | [`READY`]: it has what it needs; until now nothing has changed for anybody |
//! | old | the line `go`: from now on the sockets are the new one's. Without it the old one goes on, unless it has died |
//! | old | a line `ended PORT` as each worker ends; then the end of the connection |
//!
//! An old pool that is killed leaves workers that still drain: the new one watches their processes itself.
//!
//! Which socket is which, its own address says.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use sq_shared::file_error;
use sq_shared::socket_file;
use sq_shared::tenant::TenantName;

/// How long a new pool waits for the old one.
const WAIT_FOR_OLD: Duration = Duration::from_secs(60);

/// How long an old pool that got SIGQUIT looks for the new one, and how often.
pub const WAIT_FOR_NEW: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long either waits for the other's next word. The old one starts no worker meanwhile.
const WORD_TIMEOUT: Duration = Duration::from_secs(10);

/// The most descriptors in one message: `SCM_MAX_FD` of the kernel, unix(7).
const SOCKETS_AT_ONCE: usize = 253;

/// How long the end of a process may come after that of its connections.
const DEATH: Duration = Duration::from_secs(1);

const SOCKETS: u8 = b'S';
const END_OF_SOCKETS: u8 = b'\n';
const READY: u8 = b'R';
const GO: &str = "go\n";
const ENDED: &str = "ended ";

/// A worker of the old pool's. What else is known of it the new pool does not need: it only waits for its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldWorker {
    /// Its slot.
    pub port: u16,
    /// Its process.
    pub pid: u32,
    /// Whose it is.
    pub tenant: TenantName,
    /// The directory that it has open.
    pub data_dir: PathBuf,
}

/// What the new pool has received, before it has taken it.
#[derive(Debug)]
pub struct Handover {
    /// Listening sockets: the slots' and the status page's.
    pub sockets: Vec<OwnedFd>,
    /// Workers that still run.
    pub workers: Vec<OldWorker>,
    predecessor: BufReader<UnixStream>,
    /// The old pool's process: its id, and a descriptor that tells of its end.
    old_pool: (Pid, OwnedFd),
}

/// Removes the socket file when nobody waits there any more; not another pool's that has taken its place.
struct Door<'a> {
    path: &'a Path,
    inode: Option<u64>,
}

impl<'a> Door<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, inode: inode_of(path) }
    }
}

impl Drop for Door<'_> {
    fn drop(&mut self) {
        if self.inode.is_some() && inode_of(self.path) == self.inode {
            // It may have been removed.
            let _ = fs::remove_file(self.path);
        }
    }
}

fn inode_of(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|file| file.ino())
}

/// Waits for the old pool, and receives what it has. Blocks.
///
/// # Errors
/// The path cannot be had, nobody comes, or what comes is not understood; the text says what to do.
pub fn receive(path: &Path) -> Result<Handover, String> {
    let explain = |error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => "another new pool waits there".to_owned(),
            _ => file_error::text(path, &error),
        };
        format!("cannot listen on {} for the pool that hands over: {why}", path.display())
    };
    // One that waited here before and was killed has left its file.
    socket_file::remove_dead(path).map_err(explain)?;
    let listener = UnixListener::bind(path).map_err(explain)?;
    let _door = Door::new(path);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(explain)?;
    listener.set_nonblocking(true).map_err(explain)?;
    tracing::info!(path = %path.display(), "waiting for the running pool; send it SIGQUIT");
    let deadline = Instant::now() + WAIT_FOR_OLD;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let stream = match wait_for_connection(&listener, left) {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(explain(error)),
        };
        match take_in(stream) {
            Ok(handover) => return Ok(handover),
            Err(error) => {
                tracing::error!(%error, "the running pool did not hand over; send it SIGQUIT again")
            }
        }
    }
    Err(format!(
        "no pool handed its sockets over within {} s; send SIGQUIT to the running one, or start this one without \
         --upgrade when there is none",
        WAIT_FOR_OLD.as_secs()
    ))
}

fn wait_for_connection(listener: &UnixListener, at_most: Duration) -> io::Result<UnixStream> {
    let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
    rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout)))?;
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn take_in(stream: UnixStream) -> io::Result<Handover> {
    check_peer(&stream)?;
    stream.set_read_timeout(Some(WORD_TIMEOUT))?;
    stream.set_write_timeout(Some(WORD_TIMEOUT))?;
    let pid = sockopt::socket_peercred(&stream)?.pid;
    let old_pool = (pid, pidfd_open(pid, PidfdFlags::empty())?);
    let sockets = receive_sockets(&stream)?;
    let mut predecessor = BufReader::new(stream);
    let workers = serde_json::from_str(&line(&mut predecessor)?)?;
    Ok(Handover { sockets, workers, predecessor, old_pool })
}

fn receive_sockets(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    loop {
        let mut word = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        // Byte by byte: the descriptors belong to theirs.
        let mut bytes = [IoSliceMut::new(&mut word)];
        let received =
            rustix::io::retry_on_intr(|| recvmsg(stream, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC))?;
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("too many sockets for this process: raise its limit of open files"));
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                sockets.extend(received);
            }
        }
        match (received.bytes, word) {
            (1, [SOCKETS]) => {}
            (1, [END_OF_SOCKETS]) => return Ok(sockets),
            (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Handover {
    /// Says that everything is taken over. The old pool's word decides: without it, the sockets are still its own,
    /// unless it has died.
    ///
    /// # Errors
    /// The old pool goes on.
    pub fn accept(mut self) -> Result<Endings, String> {
        // Before the word: as long as the old pool starts nobody, no other process of its has a worker's id.
        let parent = self.old_pool.0;
        let running =
            self.workers.iter().filter_map(|worker| Some((worker.port, watch(worker.pid, parent)?)));
        let running = running.collect();
        let agreed =
            self.predecessor.get_mut().write_all(&[READY]).and_then(|()| last_word(&mut self.predecessor));
        match agreed {
            Ok(word) if word == GO => Ok(Endings { predecessor: self.predecessor, running }),
            Err(_) if has_ended(&self.old_pool.1, DEATH) => {
                tracing::warn!("the running pool died while it handed over; this one has the sockets");
                Ok(Endings { predecessor: self.predecessor, running })
            }
            Ok(word) => Err(format!("the running pool said {word:?} instead of handing over; it goes on")),
            Err(error) => Err(format!("the running pool did not hand over in the end: {error}; it goes on")),
        }
    }
}

/// The old pool's news of its workers.
#[derive(Debug)]
pub struct Endings {
    predecessor: BufReader<UnixStream>,
    /// By port: descriptors of the workers' processes, each readable when that process has ended.
    running: BTreeMap<u16, OwnedFd>,
}

impl Endings {
    /// The slot whose worker has ended next; `None` when all have. Blocks.
    pub fn next_port(&mut self) -> Option<u16> {
        loop {
            match line(&mut self.predecessor) {
                Ok(line) => {
                    if let Some(port) = line.strip_prefix(ENDED).and_then(|port| port.trim().parse().ok()) {
                        self.running.remove(&port);
                        return Some(port);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.next_orphan(),
            }
        }
    }

    /// The same when the old pool is gone.
    fn next_orphan(&mut self) -> Option<u16> {
        if self.running.is_empty() {
            return None;
        }
        let mut polled: Vec<PollFd<'_>> =
            self.running.values().map(|process| PollFd::new(process, PollFlags::IN)).collect();
        if let Err(error) = rustix::io::retry_on_intr(|| poll(&mut polled, None)) {
            tracing::warn!(%error, "cannot see the ends of the old pool's workers");
            return None;
        }
        let mut ended = self.running.keys().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
        let port = *ended.next()?.0;
        self.running.remove(&port);
        Some(port)
    }
}

/// The old pool's last word. When it is late, the ear is shut before nobody listens any more: a word that came in this
/// moment is heard, and the old pool is told that a later one was not.
fn last_word(stream: &mut BufReader<UnixStream>) -> io::Result<String> {
    line(stream).or_else(|late| {
        stream.get_ref().shutdown(Shutdown::Read)?;
        line(stream).map_err(|_| late)
    })
}

/// A whole line; the end before it is an error.
fn line(stream: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if line.ends_with('\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Looks for a pool that waits to take over.
///
/// # Errors
/// There is none; the text says what to do.
pub async fn find_successor(path: &Path) -> Result<UnixStream, String> {
    let deadline = Instant::now() + WAIT_FOR_NEW;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= deadline => {
                return Err(format!(
                    "{}: {error}; start `sq-worker pool --upgrade` with the same --config first",
                    path.display()
                ));
            }
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// Hands everything over; the result takes [`say_ended`]. Blocks.
///
/// # Errors
/// The new pool is another user's, died, or took too long: nothing has been handed over.
pub fn give(
    mut stream: UnixStream,
    sockets: &[Arc<OwnedFd>],
    workers: &[OldWorker],
) -> io::Result<UnixStream> {
    check_peer(&stream)?;
    stream.set_read_timeout(Some(WORD_TIMEOUT))?;
    stream.set_write_timeout(Some(WORD_TIMEOUT))?;
    let workers = serde_json::to_string(workers)?;
    for batch in sockets.chunks(SOCKETS_AT_ONCE) {
        let batch: Vec<BorrowedFd<'_>> = batch.iter().map(AsFd::as_fd).collect();
        send_sockets(&stream, &batch)?;
    }
    stream.write_all(&[END_OF_SOCKETS])?;
    stream.write_all(format!("{workers}\n").as_bytes())?;
    let mut word = [0];
    stream.read_exact(&mut word)?;
    if word != [READY] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    stream.write_all(GO.as_bytes())?;
    Ok(stream)
}

fn send_sockets(stream: &UnixStream, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let sent = rustix::io::retry_on_intr(|| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(sockets)) {
            return Err(rustix::io::Errno::NOBUFS);
        }
        sendmsg(stream, &[IoSlice::new(&[SOCKETS])], &mut control, SendFlags::NOSIGNAL)
    })?;
    if sent == 1 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Tells the new pool that a worker has ended. A word that is lost costs only time: the end of the connection says
/// the same of all.
pub fn say_ended(mut successor: &UnixStream, port: u16) {
    if let Err(error) = successor.write_all(format!("{ENDED}{port}\n").as_bytes()) {
        tracing::debug!(%error, port, "cannot tell the new pool of a worker's end");
    }
}

/// The process at the other end; `None` when the system does not say.
pub fn pid_of(peer: &UnixStream) -> Option<u32> {
    let peer = sockopt::socket_peercred(peer).ok()?;
    Some(peer.pid.as_raw_nonzero().get().cast_unsigned())
}

/// The slots' sockets are for this user's own pool.
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = sockopt::socket_peercred(stream)?.uid;
    let own = rustix::process::geteuid();
    if peer == own {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the other side runs as user {}, this pool as user {}",
        peer.as_raw(),
        own.as_raw()
    )))
}

/// A descriptor of a worker's process. `None` when there is no such process among the parent's children: it has ended,
/// and its id may be another's by now.
fn watch(pid: u32, parent: Pid) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): `pid (name) state ppid ...`, and the name may hold anything.
    let found: i32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    (found == parent.as_raw_nonzero().get()).then_some(process)
}

/// Whether this process ends within a time.
fn has_ended(process: &OwnedFd, within: Duration) -> bool {
    let Ok(timeout) = Timespec::try_from(within) else { return false };
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut polled, Some(&timeout))).is_ok_and(|ended| ended > 0)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeping() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// A handover from this process, with these workers.
    fn handover(workers: &[(u16, u32)]) -> (Handover, UnixStream) {
        let (old, new) = UnixStream::pair().unwrap();
        let worker = |&(port, pid)| OldWorker {
            port,
            pid,
            tenant: "alice".parse().unwrap(),
            data_dir: "/nonexistent".into(),
        };
        let own = rustix::process::getpid();
        let handover = Handover {
            sockets: Vec::new(),
            workers: workers.iter().map(worker).collect(),
            predecessor: BufReader::new(new),
            old_pool: (own, pidfd_open(own, PidfdFlags::empty()).unwrap()),
        };
        (handover, old)
    }

    #[test]
    fn when_the_old_pool_is_killed_its_workers_have_ended_only_when_their_processes_have() {
        let (first, second) = (sleeping(), sleeping());
        // Process 1 is nobody's worker: an id that has become another's.
        let (handover, mut old) = handover(&[(1341, first.id()), (1342, second.id()), (1343, 1)]);
        old.write_all(GO.as_bytes()).unwrap();
        let mut endings = handover.accept().unwrap();
        drop(old);
        let (sender, ended) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            while let Some(port) = endings.next_port() {
                sender.send(port).unwrap();
            }
        });
        assert!(ended.recv_timeout(Duration::from_millis(100)).is_err(), "both still run");
        end(second);
        assert_eq!(ended.recv(), Ok(1342));
        end(first);
        assert_eq!(ended.recv(), Ok(1341));
        waiting.join().unwrap();
        assert!(ended.recv().is_err());
    }

    #[test]
    fn without_the_word_the_new_pool_serves_only_when_the_old_one_has_died() {
        let (goes_on, old) = handover(&[]);
        drop(old);
        assert!(goes_on.accept().unwrap_err().contains("it goes on"));
        let (mut died, old) = handover(&[]);
        let child = sleeping();
        let pid = Pid::from_child(&child);
        died.old_pool = (pid, pidfd_open(pid, PidfdFlags::empty()).unwrap());
        drop(old);
        end(child);
        assert!(died.accept().is_ok());
    }

    #[test]
    fn two_new_pools_leave_each_other_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("door");
        let first = UnixListener::bind(&path).unwrap();
        let door = Door::new(&path);
        assert!(receive(&path).unwrap_err().contains("another new pool waits there"));
        assert!(path.exists());
        fs::write(folder.path().join("other"), "").unwrap();
        drop(first);
        socket_file::remove_dead(&path).unwrap();
        assert!(!path.exists(), "nobody listened there");
        fs::rename(folder.path().join("other"), &path).unwrap();
        drop(door);
        assert!(path.exists(), "it was another's");
    }
}
