//! The audit log: one line of JSON per write, in `audit.log` beside the config.
//!
//! A write takes a permit for its line before it is forwarded ([`route::AuditedRoute`]), and completes the line before its
//! answer goes out ([`outcome`]). A separate thread writes the lines in order. With `require` an answer waits until the kernel
//! has its line, and no write is forwarded while the file cannot be written. With `try` nothing waits, and lost lines are
//! counted and noted in the log itself.

pub(crate) mod route;
mod scroll;

mod line;
pub(crate) mod outcome;

mod file;
mod health;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use sq_shared::config::Enforcement;
use sq_shared::file_error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use file::AuditFile;
use health::Health;
use outcome::PendingLine;
use writer::{Entry, Writer};

/// The number of lines, each under 2 KiB, that may wait for the file or for their outcome. 10,000 connections, the default of
/// `limits.connections`, cannot have as many writes in flight; if more connections are allowed, this is the limit.
const MAX_LINES: usize = 16_384;

/// Why a write is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuditUnavailable {
    /// The file cannot be written, or the writing thread has stopped.
    #[error("the audit log cannot be written")]
    Failing,
    #[error("{MAX_LINES} lines are waiting for the audit log")]
    Full,
}

/// Why the audit log does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    #[error(
        "failed to open the audit log {0}: {text}; make it a file that this user may write, or set gateway.audit to \
         \"try\" or \"off\"",
        text = file_error::text(.0, .1)
    )]
    Open(PathBuf, io::Error),
    #[error("failed to start the audit log: {0}")]
    System(#[from] io::Error),
}

/// A handle to the audit log; `None` if it is off. Clones share everything.
#[derive(Clone)]
pub(crate) struct AuditLog(Option<Arc<Queue>>);

/// The queue of the writing thread.
struct Queue {
    permits: Arc<Semaphore>,
    entries: mpsc::UnboundedSender<Entry>,
    health: Arc<Health>,
}

pub(crate) struct AuditWriter {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl AuditLog {
    /// Opens the file and starts the writing thread; `None` if the log is off. Each of `reloads` reopens the file.
    ///
    /// # Errors
    /// With `require`, the file cannot be opened. With `try` too, the thread cannot be started.
    pub(crate) fn start(
        audit: Enforcement,
        path: &Path,
        reloads: watch::Receiver<()>,
    ) -> Result<(Self, Option<AuditWriter>), AuditError> {
        if audit == Enforcement::Off {
            return Ok((Self(None), None));
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
            // The receiver may have given up.
            let _ = ending.send(());
        })?;
        let permits = Arc::new(Semaphore::new(MAX_LINES));
        let queue = Queue { permits, entries, health };
        Ok((Self(Some(Arc::new(queue))), Some(AuditWriter { stop, ended, thread })))
    }
}

impl Queue {
    /// Takes a permit for a line; `None` if all are taken and the config lets the write go on without a line.
    fn reserve(&self) -> Result<Option<OwnedSemaphorePermit>, AuditUnavailable> {
        let permit = if self.health.is_failing() || self.entries.is_closed() {
            Err(AuditUnavailable::Failing)
        } else {
            self.try_permit()
        };
        match permit {
            Err(error) if self.health.is_required => {
                self.health.lose(error);
                Err(error)
            }
            permit => Ok(permit.ok()),
        }
    }

    fn try_permit(&self) -> Result<OwnedSemaphorePermit, AuditUnavailable> {
        Arc::clone(&self.permits).try_acquire_owned().map_err(|_| AuditUnavailable::Full)
    }

    /// Sends a line to the writing thread.
    fn push(&self, line: Vec<u8>, permit: Option<OwnedSemaphorePermit>) -> PendingLine {
        // A refused write has no permit, and does not wait for a file that is known to fail.
        let waits = self.health.is_required && (permit.is_some() || !self.health.is_failing());
        let (written, waiter) = waits.then(oneshot::channel).unzip();
        // A line that got no permit at first may get one now.
        let sent = permit.map_or_else(|| self.try_permit(), Ok).and_then(|permit| {
            self.entries.send(Entry { line, permit, written }).map_err(|_| AuditUnavailable::Failing)
        });
        if let Err(error) = sent {
            self.health.lose(error);
        }
        PendingLine::new(waiter.filter(|_| sent.is_ok()), Arc::clone(&self.health))
    }
}

impl AuditWriter {
    /// Waits until every line is written and synced, or until `limit` if the disk hangs.
    pub(crate) async fn stop(self, limit: Duration) {
        let _ = self.stop.send(());
        match tokio::time::timeout(limit, self.ended).await {
            Ok(_) => _ = self.thread.join(),
            Err(_) => tracing::error!("timed out writing the audit log; its last lines are lost"),
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
        (Queue { permits: Arc::new(Semaphore::new(MAX_LINES)), entries, health }, receiver)
    }

    #[test]
    fn a_disk_that_was_reported_hung_just_after_it_answered_recovers() {
        let root = Root::empty();
        let (log, _writer) =
            AuditLog::start(Enforcement::Require, &root.join("audit.log"), watch::channel(()).1).unwrap();
        let queue = log.0.unwrap();
        let mut written = queue.push(b"line\n".to_vec(), queue.reserve().unwrap());
        block_on(written.wait());
        assert_eq!(root.read("audit.log"), "line\n");
        queue.health.hang();
        wait::until("a permit", || queue.reserve().is_ok());
    }

    #[test]
    fn without_a_writer_no_write_that_needs_its_line_is_admitted() {
        for is_required in [true, false] {
            let (queue, receiver) = queue(is_required);
            assert!(queue.reserve().is_ok_and(|permit| permit.is_some()));
            drop(receiver);
            let expected = if is_required { Some(AuditUnavailable::Failing) } else { None };
            assert_eq!(queue.reserve().err(), expected);
        }
    }

    #[test]
    fn a_write_past_the_last_permit_is_refused_if_its_line_is_required() {
        for is_required in [true, false] {
            let (queue, _receiver) = queue(is_required);
            let permits: Vec<_> = (0..MAX_LINES).map(|_| queue.reserve().unwrap().unwrap()).collect();
            let expected = if is_required { Some(AuditUnavailable::Full) } else { None };
            assert_eq!(queue.reserve().err(), expected);
            drop(permits);
            assert!(queue.reserve().is_ok_and(|permit| permit.is_some()));
        }
    }

    #[test]
    fn a_second_wait_is_for_the_same_line() {
        let (queue, mut receiver) = queue(true);
        let mut written = queue.push(b"line\n".to_vec(), queue.reserve().unwrap());
        block_on(async {
            for _ in 0..2 {
                let ended = tokio::time::timeout(Duration::from_millis(5), written.wait()).await;
                assert!(ended.is_err(), "it is not written yet");
            }
            let entry = receiver.recv().await.unwrap();
            entry.written.unwrap().send(()).unwrap();
            written.wait().await;
        });
        assert!(receiver.try_recv().is_err(), "there is only one line");
    }
}
