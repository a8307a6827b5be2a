//! Notices when the config or the registry has changed. Their folders are watched, because editors and our own CLI
//! replace a file by renaming another over it. And the files are looked at, for what no watch of a folder sees: a
//! symbolic link further up that leads elsewhere now (Kubernetes swaps `..data`), a file behind a link, a folder that
//! was replaced or mounted over, a file system of another machine.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Changes that come within this time of each other are one change: an editor writes a file in steps.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// A file that never comes to rest is read all the same after this time.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// How often the files are looked at: a change is in force within a second, and a look costs a `stat` a file.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Waits for changes of a few files.
pub struct FileWatch {
    files: Arc<[PathBuf]>,
    /// How they looked when a change was last announced.
    seen: Vec<Option<Look>>,
    events: mpsc::Receiver<()>,
    /// Kept so that the channel stays open where the system cannot watch.
    _sender: mpsc::Sender<()>,
    _watcher: Option<RecommendedWatcher>,
}

/// Another file, or another text in it, looks different: device, inode, size, and times of the last change of the
/// text and of the inode (seconds and nanoseconds).
type Look = (u64, u64, u64, [i64; 4]);

impl FileWatch {
    /// Watches these files.
    pub fn new(files: &[PathBuf]) -> Self {
        let (sender, events) = mpsc::channel(1);
        let watcher = start(files, sender.clone()).map_err(|error| {
            tracing::debug!(%error, "cannot watch the folders of config and registry; the files are looked at");
        });
        Self { files: files.into(), seen: look(files), events, _sender: sender, _watcher: watcher.ok() }
    }

    /// Ends when one of the files has changed, and has then been left alone for a moment.
    pub async fn changed(&mut self) {
        while timeout(LOOK_INTERVAL, self.events.recv()).await.is_err() {
            if self.look().await != self.seen {
                break;
            }
        }
        let latest = Instant::now() + LONGEST_WAIT;
        loop {
            let before = self.look().await;
            let is_quiet = timeout(DEBOUNCE, self.events.recv()).await.is_err();
            // Looked at before they are read: what changes meanwhile is a change again.
            self.seen = self.look().await;
            if is_quiet && self.seen == before || Instant::now() >= latest {
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

fn start(files: &[PathBuf], sender: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let names: Vec<OsString> = files.iter().filter_map(|file| file.file_name()).map(OsString::from).collect();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let is_ours =
            |path: &PathBuf| path.file_name().is_some_and(|name| names.iter().any(|ours| ours == name));
        if !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(is_ours) {
            // When the channel is full, a change is on its way already.
            let _ = sender.try_send(());
        }
    })?;
    let mut folders: Vec<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    folders.sort();
    folders.dedup();
    for folder in folders {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}
