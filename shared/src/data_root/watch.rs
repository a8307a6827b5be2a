//! Checks regularly whether the data root is there, on a separate thread: a disk that hangs stops only that thread.

use std::io;
use std::thread;
use std::time::Duration;

use super::{DataRoot, RootLoss, Why};
use crate::file_id::FileId;

/// How often. A check opens and reads one short file.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Checks a data root, and remembers the last result.
#[derive(Debug)]
pub struct RootWatch {
    data_root: DataRoot,
    loss: Option<RootLoss>,
    /// The directory whose mount was noted last: another one means another mount.
    located: Option<FileId>,
}

impl RootWatch {
    /// Watches a data root that was just checked.
    pub fn new(data_root: DataRoot) -> Self {
        Self { data_root, loss: None, located: None }
    }

    /// Checks until the process ends, and logs and calls `tell` when the root is lost and when it is back. Ends when
    /// `tell` returns false.
    pub fn spawn(mut self, mut tell: impl FnMut(bool) -> bool + Send + 'static) -> io::Result<()> {
        let check = move || {
            loop {
                if let Some(is_lost) = self.check()
                    && !tell(is_lost)
                {
                    return;
                }
                thread::sleep(CHECK_INTERVAL);
            }
        };
        thread::Builder::new().name("data-root".to_owned()).spawn(check).map(drop)
    }

    /// Whether the root is lost, if that has changed.
    fn check(&mut self) -> Option<bool> {
        let loss = match self.data_root.open() {
            Err(RootLoss { why: Why::Scarce(_), .. }) => return None,
            Err(loss) => Some(loss),
            Ok(directory) => {
                self.note_mount(directory.metadata().as_ref().map(FileId::from_metadata).ok());
                None
            }
        };
        if loss == self.loss {
            return None;
        }
        let was_lost = self.loss.is_some();
        self.loss = loss;
        match &self.loss {
            Some(loss) => {
                tracing::error!("nothing is read, written or made until the data root is back: {loss}")
            }
            None => tracing::info!(root = %self.data_root.path().display(), "the data root is back"),
        }
        let is_lost = self.loss.is_some();
        (is_lost != was_lost).then_some(is_lost)
    }

    /// Notes the root's mount at the first check, and when another disk is mounted at its path.
    fn note_mount(&mut self, found: Option<FileId>) {
        if found == self.located {
            return;
        }
        self.located = found;
        if let Err(error) = self.data_root.note_mount() {
            tracing::warn!(
                %error,
                "the mount of the data root cannot be noted beside the config: at the next start a folder under it with the \
                 same marker is taken"
            );
        }
    }
}
