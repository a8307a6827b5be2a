//! The writing thread. It writes lines in order, as many at once as are waiting. Lines that cannot be written stay in memory, in
//! order, and are tried again.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::file::{AuditFile, Unwritten};
use super::health::Health;
use super::line::missing_line;

/// The interval between attempts while the file cannot be written.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// The number of lines in one append: some 300 KiB.
const BATCH_LINES: usize = 1024;

/// How long lines gather if no answer waits for them: waking this thread, locking the file and writing it takes some
/// microseconds, and is then paid once for all of them.
const GATHER_TIME: Duration = Duration::from_millis(5);

/// A line to write.
pub(super) struct Entry {
    pub(super) line: Vec<u8>,
    /// Released when the line is written.
    pub(super) permit: OwnedSemaphorePermit,
    /// Notified once the line was tried.
    pub(super) written: Option<oneshot::Sender<()>>,
}

pub(super) struct Writer {
    path: PathBuf,
    /// `None` if it must be opened first.
    file: Option<AuditFile>,
    entries: mpsc::UnboundedReceiver<Entry>,
    health: Arc<Health>,
    /// The lines that are not written yet, the oldest first.
    waiting: VecDeque<Waiting>,
    /// When to try again, if the file cannot be written.
    retry_at: Option<Instant>,
}

struct Waiting {
    line: Vec<u8>,
    /// `None` for a line that reports missing ones.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Writer {
    pub(super) fn new(
        path: PathBuf,
        file: Option<AuditFile>,
        entries: mpsc::UnboundedReceiver<Entry>,
        health: Arc<Health>,
    ) -> Self {
        let retry_at = file.is_none().then(Instant::now);
        Self { path, file, entries, health, waiting: VecDeque::new(), retry_at }
    }

    /// Writes until it is told to stop, and then writes what is left.
    pub(super) async fn run(mut self, mut reloads: watch::Receiver<()>, stop: oneshot::Receiver<()>) {
        let mut stop = std::pin::pin!(stop);
        let mut is_stopping = false;
        let mut batch = Vec::new();
        let health = Arc::clone(&self.health);
        let mut gathered = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let mut is_gathering = false;
        loop {
            let retry_at = self.retry_at.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                Ok(()) = reloads.changed() => self.reopen(),
                _ = stop.as_mut(), if !is_stopping => {
                    is_stopping = true;
                    is_gathering = false;
                    self.entries.close();
                }
                () = tokio::time::sleep_until(retry_at), if self.retry_at.is_some() => self.write(&mut Vec::new()),
                // Either the disk answered just in time, or this blocks until it does.
                () = health.hung() => self.write(&mut Vec::new()),
                () = gathered.as_mut(), if is_gathering => is_gathering = false,
                count = self.entries.recv_many(&mut batch, BATCH_LINES), if !is_gathering => {
                    match (count, self.retry_at) {
                        (0, _) => break,
                        (_, None) => self.write(&mut batch),
                        // Nothing waits for these lines: the file is known to fail.
                        (_, Some(_)) => drop(self.keep(&mut batch)),
                    }
                    is_gathering = !health.is_required && !is_stopping;
                    gathered.as_mut().reset(Instant::now() + GATHER_TIME);
                }
            }
        }
        self.finish();
    }

    /// Queues lines. Returns the senders to notify.
    fn keep(&mut self, batch: &mut Vec<Entry>) -> Vec<oneshot::Sender<()>> {
        let mut waiters = Vec::new();
        for Entry { line, permit, written } in batch.drain(..) {
            self.waiting.push_back(Waiting { line, _permit: Some(permit) });
            waiters.extend(written);
        }
        waiters
    }

    /// Writes all queued lines and these. Their answers wait for this attempt only.
    fn write(&mut self, batch: &mut Vec<Entry>) {
        let waiters = self.keep(batch);
        match self.try_write() {
            Ok(()) => {
                self.retry_at = None;
                self.health.recover();
            }
            Err(error) => self.fail(&error),
        }
        for waiter in waiters {
            // The client may be gone.
            let _ = waiter.send(());
        }
    }

    fn try_write(&mut self) -> io::Result<()> {
        loop {
            let file = match self.file.take_if(|file| !file.is_deleted()) {
                Some(file) => self.file.insert(file),
                None => self.file.insert(AuditFile::open(&self.path)?),
            };
            while !self.waiting.is_empty() {
                let lines: Vec<&[u8]> =
                    self.waiting.iter().take(BATCH_LINES).map(|waiting| waiting.line.as_slice()).collect();
                let (count, bytes) = (lines.len(), lines.concat());
                if let Err(Unwritten { written_bytes, error }) = file.append(&bytes) {
                    self.drop_written(written_bytes);
                    return Err(error);
                }
                self.waiting.drain(..count);
            }
            let Some(missing) = self.health.take_missing() else { return Ok(()) };
            self.waiting.push_back(Waiting { line: missing_line(missing), _permit: None });
        }
    }

    /// After a partial append, drops the lines that are complete in the file, which must not be written twice.
    fn drop_written(&mut self, mut bytes: usize) {
        while let Some(waiting) = self.waiting.front().filter(|waiting| waiting.line.len() <= bytes) {
            bytes -= waiting.line.len();
            self.waiting.pop_front();
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.file = None;
        self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
        self.health.fail(&self.path, error);
    }

    /// Closes the file, which was renamed, and opens the one at the path.
    fn reopen(&mut self) {
        if let Some(Err(error)) = self.file.take().map(|file| file.sync()) {
            tracing::warn!(path = %self.path.display(), %error, "failed to sync the previous audit log");
        }
        self.write(&mut Vec::new());
        tracing::info!(path = %self.path.display(), "reopened the audit log");
    }

    fn finish(mut self) {
        let written = self.try_write();
        let synced = written.and_then(|()| self.file.as_ref().map_or(Ok(()), AuditFile::sync));
        if let Err(error) = synced {
            let lost_lines = self.waiting.len();
            tracing::error!(lost_lines, path = %self.path.display(), %error, "failed to write the last lines of the audit log");
        }
    }
}

#[cfg(test)]
mod tests {
    use sq_tests::root::Root;
    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;

    use super::*;

    /// A running writer.
    struct Running {
        root: Root,
        entries: mpsc::UnboundedSender<Entry>,
        stop: oneshot::Sender<()>,
        writer: JoinHandle<()>,
    }

    impl Running {
        fn start(is_required: bool) -> Self {
            let root = Root::empty();
            let path = root.join("audit.log");
            let file = AuditFile::open(&path).unwrap();
            let (entries, receiver) = mpsc::unbounded_channel();
            let (stop, stopped) = oneshot::channel();
            let writer = Writer::new(path, Some(file), receiver, Arc::new(Health::new(is_required)));
            let writer = tokio::spawn(writer.run(watch::channel(()).1, stopped));
            Self { root, entries, stop, writer }
        }

        fn push(&self, line: &str) -> oneshot::Receiver<()> {
            let (written, waiter) = oneshot::channel();
            let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            self.entries.send(Entry { line: line.into(), permit, written: Some(written) }).unwrap();
            waiter
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_gather_where_no_answer_waits_for_them() {
        let running = Running::start(false);
        let start = Instant::now();
        running.push("one\n").await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO, "the first line does not wait");
        let (second, third) = (running.push("two\n"), running.push("three\n"));
        second.await.unwrap();
        assert!((GATHER_TIME..2 * GATHER_TIME).contains(&start.elapsed()), "{:?}", start.elapsed());
        third.await.unwrap();
        assert!(start.elapsed() < 2 * GATHER_TIME, "they were written together");
        assert_eq!(running.root.read("audit.log"), "one\ntwo\nthree\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_an_answer_waits_for_is_written_at_once() {
        let running = Running::start(true);
        let start = Instant::now();
        for line in ["one\n", "two\n", "three\n"] {
            running.push(line).await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_for_lines_to_gather() {
        let running = Running::start(false);
        let start = Instant::now();
        running.push("one\n").await.unwrap();
        let _second = running.push("two\n");
        running.stop.send(()).unwrap();
        running.writer.await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(running.root.read("audit.log"), "one\ntwo\n");
    }
}
