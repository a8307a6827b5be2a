//! Whether the worker serves a client now, and when it last did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::{Duration, Instant};

/// The worker's activity. Atomic only because the bytes of an answer carry a [`Busy`], and `Bytes` requires `Send`; all
/// of them stay on one thread.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    busy: AtomicU64,
    /// Microseconds after `began`.
    last_us: AtomicU64,
}

/// Keeps the worker from being idle while it lives.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), busy: AtomicU64::new(0), last_us: AtomicU64::new(0) }
    }

    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// When the last [`Busy`] was dropped. Meaningless while another one lives.
    pub(super) fn last(&self) -> Instant {
        self.began + Duration::from_micros(self.last_us.load(Ordering::Relaxed))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // The time first: once the count is zero, `last` must be current.
        let now_us = u64::try_from(self.0.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.last_us.store(now_us, Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}
