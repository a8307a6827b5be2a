//! Whether the audit log can be written, and how many lines are missing from it.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sq_shared::clock;
use sq_shared::file_error;
use tokio::sync::Notify;

use super::AuditUnavailable;

/// The first lost line is logged at once, further ones as a number once per interval.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The state that requests and the writing thread share.
pub(super) struct Health {
    /// Whether a write is refused without its line.
    pub(super) is_required: bool,
    is_failing: AtomicBool,
    hung: Notify,
    lost_lines: AtomicU64,
    gap: Mutex<Gap>,
}

#[derive(Default)]
struct Gap {
    missing: Option<Missing>,
    logged: Option<Instant>,
}

/// Lines that the log does not have: their number, and the times of the first and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) lines: u64,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Health {
    pub(super) fn new(is_required: bool) -> Self {
        Self {
            is_required,
            is_failing: AtomicBool::new(false),
            hung: Notify::new(),
            lost_lines: AtomicU64::new(0),
            gap: Mutex::default(),
        }
    }

    /// Whether the last attempt to write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Acquire)
    }

    /// Notes that the file cannot be written, and logs it once.
    pub(super) fn fail(&self, path: &Path, error: &io::Error) {
        if !self.is_failing.swap(true, Ordering::AcqRel) {
            let (error, path) = (file_error::text(path, error), path.display());
            let consequence = if self.is_required {
                "refusing writes until it can be"
            } else {
                "writes go on, and lines wait in memory"
            };
            tracing::error!(%path, %error, "the audit log cannot be written: {consequence}");
        }
    }

    /// Notes that the disk hangs. The writing thread is notified, because it may have finished just before, and only it can clear
    /// this state.
    pub(super) fn hang(&self) {
        if !self.is_failing.swap(true, Ordering::AcqRel) {
            tracing::error!("the audit log's disk does not respond; refusing writes until it does");
        }
        self.hung.notify_one();
    }

    /// Waits for the next report that the disk hangs. Several reports may be one.
    pub(super) async fn hung(&self) {
        self.hung.notified().await;
    }

    pub(super) fn recover(&self) {
        if self.is_failing.swap(false, Ordering::AcqRel) {
            let lost_lines = self.lost_lines.load(Ordering::Relaxed);
            tracing::warn!(lost_lines, "the audit log can be written again");
        }
    }

    /// Counts a line that the log will not have.
    pub(super) fn lose(&self, reason: AuditUnavailable) {
        let lost_lines = self.lost_lines.fetch_add(1, Ordering::Relaxed) + 1;
        let now = clock::now();
        let mut gap = self.gap();
        let missing = gap.missing.get_or_insert(Missing { lines: 0, from: now, to: now });
        missing.lines += 1;
        missing.to = now;
        if gap.logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
            gap.logged = Some(Instant::now());
            let what = if self.is_required { "writes are refused" } else { "audit lines are lost" };
            tracing::error!(lost_lines, "{what}: {reason}");
        }
    }

    /// Takes the lines that are missing since the last call.
    pub(super) fn take_missing(&self) -> Option<Missing> {
        self.gap().missing.take()
    }

    fn gap(&self) -> MutexGuard<'_, Gap> {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
