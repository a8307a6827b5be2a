//! Whether anybody is being served, and when somebody last was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::{Duration, Instant};

/// The account of a worker. Atomic only because the bytes of an answer carry a [`Busy`], and hyper's bytes
/// may cross threads; ours never do.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    busy: AtomicU64,
    /// Microseconds after `began`.
    last_us: AtomicU64,
}

/// A worker is not idle while one of these lives.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), busy: AtomicU64::new(0), last_us: AtomicU64::new(0) }
    }

    /// Keeps the worker busy for as long as the value lives.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// When somebody last ended being served. While somebody is, it says nothing.
    pub(super) fn last(&self) -> Instant {
        self.began + Duration::from_micros(self.last_us.load(Ordering::Relaxed))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // The time first: whoever is not busy any more has a time that says since when.
        let now_us = u64::try_from(self.0.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.last_us.store(now_us, Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}
