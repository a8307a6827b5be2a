//! Notices when the config or the registry has changed: their folders are watched, because editors and
//! our own CLI replace a file by renaming another over it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Changes that come within this time of each other are one change: an editor writes a file in steps.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// A file that never comes to rest is read all the same after this time.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Waits for changes of a few files.
pub struct FileWatch {
    changes: mpsc::Receiver<()>,
    _watcher: Option<RecommendedWatcher>,
}

impl FileWatch {
    /// Watches these files. Where the system cannot watch, that is logged, and only SIGHUP reloads.
    pub fn new(files: &[PathBuf]) -> Self {
        let (sender, changes) = mpsc::channel(1);
        let watcher = start(files, sender).map_err(|error| {
            tracing::warn!(%error, "cannot watch the config and the registry; send SIGHUP after a change");
        });
        Self { changes, _watcher: watcher.ok() }
    }

    /// Ends when one of the files has changed, and has then been left alone for a moment.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            return std::future::pending().await;
        }
        let latest = Instant::now() + LONGEST_WAIT;
        while Instant::now() < latest {
            match tokio::time::timeout(DEBOUNCE, self.changes.recv()).await {
                Ok(Some(())) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }
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
