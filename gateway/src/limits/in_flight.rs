//! The in-flight limit of a tenant: a semaphore that a reload may resize while permits are held. (tokio's semaphore cannot
//! shrink below the permits held, and a new one would not count them.) Nothing waits for a permit: a request that gets none
//! is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The permits of one tenant.
pub(super) struct Permits {
    /// `None` is no limit.
    limit: Option<usize>,
    /// Counted without a limit too, because the next reload may set one.
    held: Arc<AtomicUsize>,
}

/// Counts as one of the tenant's requests in flight until it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Permits {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self { limit, held: Arc::default() }
    }

    /// The same permits under another limit. Those held still count.
    pub(super) fn resized(&self, limit: Option<usize>) -> Self {
        Self { limit, held: Arc::clone(&self.held) }
    }

    /// The number of permits held.
    pub(super) fn count(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes a permit; the error is the limit.
    pub(super) fn acquire(&self) -> Result<Permit, usize> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let one_more = |held| (held < limit).then_some(held + 1);
        match self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Permit(Arc::clone(&self.held))),
            Err(_) => Err(limit),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
