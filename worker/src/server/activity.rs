//! Whether the worker serves a client now, and when it last did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::{Duration, Instant};

/// The worker's activity: it is busy while anything but the worker holds it. Atomic only because the bytes of an answer
/// carry a [`Busy`], and `Bytes` requires `Send`; all of them stay on one thread.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    /// Microseconds after `began`.
    last_us: AtomicU64,
}

/// Keeps the worker from being idle while it lives.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), last_us: AtomicU64::new(0) }
    }

    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        Busy(Arc::clone(self))
    }

    pub(super) fn is_busy(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
    }

    /// When the last [`Busy`] was dropped. Meaningless while another one lives.
    pub(super) fn last(&self) -> Instant {
        self.began + Duration::from_micros(self.last_us.load(Ordering::Relaxed))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // Before the count drops: once it is not busy, `last` must be current.
        let now_us = u64::try_from(self.0.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.last_us.store(now_us, Ordering::Relaxed);
    }
}
