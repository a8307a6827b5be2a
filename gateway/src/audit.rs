//! The audit log: one line of JSON a write, in `audit.log` beside the config.
//!
//! A request takes a place for its line before anything is forwarded ([`AuditedRoute`]), and fills it before
//! its answer goes out ([`ending`]). Lines go to a thread of their own, which writes them in the order in
//! which they came. With `require` an answer waits until its line is with the kernel, and no write is
//! forwarded while the file cannot be written; with `try` nothing waits, and what is lost is counted and
//! noted in the log itself.

pub mod ending;
mod file;
mod health;
mod line;
pub mod route;
mod scroll;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use sq_shared::config::Enforcement;
use sq_shared::file_error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use ending::Written;
use file::AuditFile;
use health::Health;
use writer::{Entry, Writer};

pub use route::AuditedRoute;

/// Most lines that wait for the file or for their end, each under 2 KiB. That is more than the writes that 10,000
/// connections, the default of `limits.connections`, can have under way; where more are allowed, this is the bound.
const PLACES: usize = 16_384;

/// Why a write is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuditUnavailable {
    /// The file cannot be written, or nobody writes it any more.
    #[error("the audit log cannot be written")]
    Failing,
    /// As many lines wait as may.
    #[error("{PLACES} lines wait for the audit log")]
    Full,
}

/// Why the audit log does not start.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be opened, and the config insists on it.
    #[error(
        "cannot open the audit log {0}: {text}; make it a file that this user may write, or set gateway.audit to \
         \"try\" or \"off\"",
        text = file_error::text(.0, .1)
    )]
    Open(PathBuf, io::Error),
    /// The system gives no thread.
    #[error("cannot start the audit log: {0}")]
    System(#[from] io::Error),
}

/// What requests know of the audit log; clones share everything.
#[derive(Clone)]
pub struct AuditLog(Option<Arc<Queue>>);

/// The way to the thread that writes.
struct Queue {
    places: Arc<Semaphore>,
    entries: mpsc::UnboundedSender<Entry>,
    health: Arc<Health>,
}

/// The thread that writes.
pub struct AuditWriter {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl AuditLog {
    /// A log that is not kept.
    pub fn off() -> Self {
        Self(None)
    }

    /// Opens the file and starts the thread that writes it; `None` when there is nothing to keep. Each of `reloads`
    /// has the file opened again.
    ///
    /// # Errors
    /// With `require`: the file cannot be opened. With either: the system gives no thread.
    pub fn start(
        audit: Enforcement,
        path: &Path,
        reloads: watch::Receiver<()>,
    ) -> Result<(Self, Option<AuditWriter>), AuditError> {
        if audit == Enforcement::Off {
            return Ok((Self::off(), None));
        }
        let is_required = audit == Enforcement::Require;
        let health = Arc::new(Health::new(is_required));
        let file = match AuditFile::open(path) {
            Ok(file) => Some(file),
            Err(error) if is_required => return Err(AuditError::Open(path.to_owned(), error)),
            Err(error) => {
                health.fail(path, &error);
                None
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (entries, receiver) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let writer = Writer::new(path.to_owned(), file, receiver, Arc::clone(&health));
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            runtime.block_on(writer.run(reloads, stopped));
            // Whoever waited for it may have given up.
            let _ = ending.send(());
        })?;
        let places = Arc::new(Semaphore::new(PLACES));
        let queue = Queue { places, entries, health };
        Ok((Self(Some(Arc::new(queue))), Some(AuditWriter { stop, ended, thread })))
    }
}

impl Queue {
    /// A place for a line; `None` when there is none and the write goes on without.
    fn reserve(&self) -> Result<Option<OwnedSemaphorePermit>, AuditUnavailable> {
        let place = if self.health.is_failing() || self.entries.is_closed() {
            Err(AuditUnavailable::Failing)
        } else {
            self.place()
        };
        match place {
            Err(error) if self.health.is_required() => {
                self.health.lose(error);
                Err(error)
            }
            place => Ok(place.ok()),
        }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, AuditUnavailable> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| AuditUnavailable::Full)
    }

    /// Hands a line to the thread that writes.
    fn push(&self, line: Vec<u8>, place: Option<OwnedSemaphorePermit>) -> Written {
        // A refusal, which has taken no place, does not wait for a file that is known to fail.
        let waits = self.health.is_required() && (place.is_some() || !self.health.is_failing());
        let (written, waiter) = waits.then(oneshot::channel).unzip();
        // Without a place at first, there may be one now.
        let sent = place.map_or_else(|| self.place(), Ok).and_then(|place| {
            self.entries.send(Entry { line, place, written }).map_err(|_| AuditUnavailable::Failing)
        });
        if let Err(error) = sent {
            self.health.lose(error);
        }
        Written::new(waiter.filter(|_| sent.is_ok()), Arc::clone(&self.health))
    }
}

impl AuditWriter {
    /// Waits until every line is written, and synced: for so long at most, should the disk hang.
    pub async fn stop(self, limit: Duration) {
        let _ = self.stop.send(());
        match tokio::time::timeout(limit, self.ended).await {
            Ok(_) => _ = self.thread.join(),
            Err(_) => tracing::error!("the audit log's disk does not answer: its last lines are lost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use sq_tests::root::Root;
    use sq_tests::wait;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn queue(is_required: bool) -> (Queue, mpsc::UnboundedReceiver<Entry>) {
        let (entries, receiver) = mpsc::unbounded_channel();
        let health = Arc::new(Health::new(is_required));
        (Queue { places: Arc::new(Semaphore::new(PLACES)), entries, health }, receiver)
    }

    #[test]
    fn a_disk_that_was_said_to_hang_when_it_had_answered_is_well_again() {
        let root = Root::empty();
        let (log, _writer) =
            AuditLog::start(Enforcement::Require, &root.join("audit.log"), watch::channel(()).1).unwrap();
        let queue = log.0.unwrap();
        let mut written = queue.push(b"line\n".to_vec(), queue.reserve().unwrap());
        block_on(written.wait());
        assert_eq!(root.read("audit.log"), "line\n");
        queue.health.hang();
        wait::until("a place", || queue.reserve().is_ok());
    }

    #[test]
    fn without_a_writer_no_write_is_let_in_that_must_have_its_line() {
        for is_required in [true, false] {
            let (queue, receiver) = queue(is_required);
            assert!(queue.reserve().is_ok_and(|place| place.is_some()));
            drop(receiver);
            let expected = if is_required { Some(AuditUnavailable::Failing) } else { None };
            assert_eq!(queue.reserve().err(), expected);
        }
    }

    #[test]
    fn a_write_past_the_last_place_is_refused_where_its_line_is_required() {
        for is_required in [true, false] {
            let (queue, _receiver) = queue(is_required);
            let places: Vec<_> = (0..PLACES).map(|_| queue.reserve().unwrap().unwrap()).collect();
            let expected = if is_required { Some(AuditUnavailable::Full) } else { None };
            assert_eq!(queue.reserve().err(), expected);
            drop(places);
            assert!(queue.reserve().is_ok_and(|place| place.is_some()));
        }
    }

    #[test]
    fn whoever_stops_waiting_for_a_line_waits_for_the_same_one_again() {
        let (queue, mut receiver) = queue(true);
        let mut written = queue.push(b"line\n".to_vec(), queue.reserve().unwrap());
        block_on(async {
            for _ in 0..2 {
                let ended = tokio::time::timeout(Duration::from_millis(5), written.wait()).await;
                assert!(ended.is_err(), "nobody has written it");
            }
            let entry = receiver.recv().await.unwrap();
            entry.written.unwrap().send(()).unwrap();
            written.wait().await;
        });
        assert!(receiver.try_recv().is_err(), "there is but one line");
    }
}
