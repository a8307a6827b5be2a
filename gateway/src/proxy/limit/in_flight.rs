//! How many requests of a tenant may be in flight: a semaphore that a reload may resize while its permits are out.
//! (tokio's cannot take back a permit that somebody holds, so a smaller one would have to begin anew, with nobody
//! in it.) Nobody waits for a permit: who gets none is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The permits of one tenant.
pub(super) struct Permits {
    /// Most at once; `None` is no limit.
    most: Option<usize>,
    /// How many are out. They are counted without a limit too: there may be one after the next reload.
    out: Arc<AtomicUsize>,
}

/// A place among a tenant's requests in flight, given back when it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Permits {
    pub(super) fn new(most: Option<usize>) -> Self {
        Self { most, out: Arc::default() }
    }

    /// As many as this from now on. The permits that are out count.
    pub(super) fn resized(&self, most: Option<usize>) -> Self {
        Self { most, out: Arc::clone(&self.out) }
    }

    /// How many permits are out.
    pub(super) fn count(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }

    /// Takes a permit; the error is how many there may be.
    pub(super) fn acquire(&self) -> Result<Permit, usize> {
        let most = self.most.unwrap_or(usize::MAX);
        let one_more = |out| (out < most).then_some(out + 1);
        match self.out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Permit(Arc::clone(&self.out))),
            Err(_) => Err(most),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
