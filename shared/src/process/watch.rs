//! Notices when the config or the registry has changed, by looking at the files themselves. So it sees each change,
//! however it is made: a file that is written in place or replaced by a rename, a symbolic link further up that leads
//! elsewhere (Kubernetes swaps `..data`), a folder that was mounted over, a file system of another machine. And what
//! happens to other files of the same folders, such as logs, causes no work: a watch of the folders would wake for each
//! line that is written there.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often the files are looked at: a change is in force within a second, and a look costs a `stat` per file.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Changes that come within this time of each other are one change: an editor writes a file in steps. It is also longer
/// than the steps of a file system's clock, so no change hides behind one with the same time.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// A file that never comes to rest is read all the same after this time.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Waits for changes of a few files.
pub struct FileWatch {
    files: Arc<[PathBuf]>,
    /// How they looked when a change was last announced.
    seen: Vec<Option<Look>>,
}

/// Another file, or another text in it, looks different: device, inode, size, and times of the last change of the
/// text and of the inode (seconds and nanoseconds).
type Look = (u64, u64, u64, [i64; 4]);

impl FileWatch {
    /// Watches these files.
    pub fn new(files: &[PathBuf]) -> Self {
        Self { files: files.into(), seen: look(files) }
    }

    /// Ends when one of the files has changed, and has then been left alone for a moment.
    pub async fn changed(&mut self) {
        while self.look().await == self.seen {
            sleep(LOOK_INTERVAL).await;
        }
        let latest = Instant::now() + LONGEST_WAIT;
        loop {
            let before = self.look().await;
            sleep(DEBOUNCE).await;
            // Looked at before they are read: what changes meanwhile is a change again.
            self.seen = self.look().await;
            if self.seen == before || Instant::now() >= latest {
                return;
            }
        }
    }

    /// On another thread: a file system that hangs must not hang who waits for the change.
    async fn look(&self) -> Vec<Option<Look>> {
        let files = Arc::clone(&self.files);
        // It is not done only when the runtime ends.
        tokio::task::spawn_blocking(move || look(&files)).await.unwrap_or_default()
    }
}

/// How the files look now, through symbolic links; `None` for one that is not there.
fn look(files: &[PathBuf]) -> Vec<Option<Look>> {
    let look = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?;
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        Some((found.dev(), found.ino(), found.size(), times))
    };
    files.iter().map(look).collect()
}
