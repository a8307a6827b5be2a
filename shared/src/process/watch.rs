//! Has files read again when one of them changes. The files themselves are polled, so each change is seen however it is
//! made: a file that is written in place or replaced by a rename, a symbolic link further up that is changed (Kubernetes
//! swaps `..data`), a folder that was mounted over, a file system of another machine. A watch of the folders would also
//! wake for each line of a log that is kept there.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How often the files are polled: a change is applied within a second, and a poll costs a `stat` per file.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Changes that come within this time of each other are one change: an editor writes a file in steps. It is also longer
/// than the steps of a file system's clock, so no change hides behind one with the same time.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// A file that keeps changing is read all the same after this time.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Why files are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// They may have changed between their last reading and the start of the watch.
    WatchBegan,
    /// One of them changed, or was touched.
    FileChanged,
    /// SIGHUP.
    Hangup,
    /// The admin API asked, or has changed one of them.
    Admin,
}

impl Reason {
    /// Whether an operator asked, who wants to see in the log that it was done, even when nothing has changed.
    pub fn is_asked_for(self) -> bool {
        matches!(self, Self::Hangup | Self::Admin)
    }
}

/// Has files read again when one of them changes, and at SIGHUP.
pub struct ReloadWatch {
    files: FileWatch,
    hangups: watch::Receiver<()>,
}

impl ReloadWatch {
    /// Watches these files. Read them again once: they may have changed since they were last read. Each of `hangups` is a
    /// SIGHUP.
    pub fn new(files: Vec<PathBuf>, hangups: watch::Receiver<()>) -> Self {
        Self { files: FileWatch::new(files), hangups }
    }

    /// Calls `reload` for each change, which returns the files to watch from then on; `None` ends the watch. `files` are
    /// those to watch now.
    pub async fn run<F>(mut self, mut files: Vec<PathBuf>, mut reload: impl FnMut(Reason) -> F)
    where
        F: Future<Output = Option<Vec<PathBuf>>>,
    {
        loop {
            let reason = if self.files.replace(files) {
                Reason::WatchBegan
            } else {
                tokio::select! {
                    () = self.files.changed() => Reason::FileChanged,
                    Ok(()) = self.hangups.changed() => Reason::Hangup,
                }
            };
            let Some(next) = reload(reason).await else { return };
            files = next;
        }
    }
}

/// Waits for changes of a few files.
struct FileWatch {
    files: Arc<[PathBuf]>,
    /// Their stamps when a change was last announced.
    seen: Vec<Option<FileStamp>>,
}

/// What changes with a file or its text: device, inode, size, and the times of the last change of the text and of the
/// inode (seconds and nanoseconds).
type FileStamp = (u64, u64, u64, [i64; 4]);

impl FileWatch {
    fn new(files: Vec<PathBuf>) -> Self {
        Self { seen: stamps(&files), files: files.into() }
    }

    /// Watches these files instead. Returns whether they are others.
    fn replace(&mut self, files: Vec<PathBuf>) -> bool {
        let is_new = *self.files != *files;
        if is_new {
            *self = Self::new(files);
        }
        is_new
    }

    /// Ends when one of the files has changed, and then has not changed for a moment.
    async fn changed(&mut self) {
        while self.stamps().await == self.seen {
            sleep(POLL_INTERVAL).await;
        }
        let latest = Instant::now() + LONGEST_WAIT;
        loop {
            let before = self.stamps().await;
            sleep(DEBOUNCE).await;
            // Taken before the files are read: a change during the reading is announced next.
            self.seen = self.stamps().await;
            if self.seen == before || Instant::now() >= latest {
                return;
            }
        }
    }

    /// On another thread: a file system that hangs must not hang the caller's.
    async fn stamps(&self) -> Vec<Option<FileStamp>> {
        let files = Arc::clone(&self.files);
        // It fails only when the runtime ends.
        tokio::task::spawn_blocking(move || stamps(&files)).await.unwrap_or_default()
    }
}

/// The files' stamps, through symbolic links; `None` for a file that is missing.
fn stamps(files: &[PathBuf]) -> Vec<Option<FileStamp>> {
    let stamp = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?;
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        Some((found.dev(), found.ino(), found.size(), times))
    };
    files.iter().map(stamp).collect()
}
