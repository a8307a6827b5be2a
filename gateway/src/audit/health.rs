//! Whether the audit log can be written now, and how many lines are missing from it.

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

/// The first lost line is logged at once, the others at most so often, as a number.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What requests and the writer both know.
pub(super) struct Health {
    is_required: bool,
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

/// Lines that the log does not have: how many, and between which times they would have come.
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

    /// Whether a write needs its line.
    pub(super) fn is_required(&self) -> bool {
        self.is_required
    }

    /// Whether the last attempt to write failed.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Acquire)
    }

    /// Notes that the file cannot be written; says so when it could before.
    pub(super) fn fail(&self, path: &Path, error: &io::Error) {
        if !self.is_failing.swap(true, Ordering::AcqRel) {
            let (error, path) = (file_error::text(path, error), path.display());
            let consequence = if self.is_required {
                "writes are refused until it can be"
            } else {
                "writes go on, and lines wait in memory"
            };
            tracing::error!(%path, %error, "the audit log cannot be written: {consequence}");
        }
    }

    /// Notes that the disk takes nothing and says nothing. The writer is told: it may have been done just before,
    /// and nobody else would take this back.
    pub(super) fn hang(&self) {
        if !self.is_failing.swap(true, Ordering::AcqRel) {
            tracing::error!("the audit log's disk does not answer: writes are refused until it does");
        }
        self.hung.notify_one();
    }

    /// Waits until the disk was said to hang, once for each time or several.
    pub(super) async fn hung(&self) {
        self.hung.notified().await;
    }

    /// Notes that the file can be written.
    pub(super) fn recover(&self) {
        if self.is_failing.swap(false, Ordering::AcqRel) {
            let lost_lines = self.lost_lines.load(Ordering::Relaxed);
            tracing::warn!(lost_lines, "the audit log can be written again");
        }
    }

    /// Counts a line that the log will not have, for this reason.
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

    /// What is missing since this was asked last.
    pub(super) fn take_missing(&self) -> Option<Missing> {
        self.gap().missing.take()
    }

    fn gap(&self) -> MutexGuard<'_, Gap> {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
