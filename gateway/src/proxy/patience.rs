//! How long a worker may keep the gateway waiting while a body moves, in either direction. One wait is bounded, and so is
//! the sum of many short ones: a worker that moves a byte just before each deadline is cut off too.

use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use pingora::prelude::timeout;
use sq_shared::limits::WORKER_BYTES_PER_S;

/// The waits of one direction of one attempt.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    /// What must move before the waits are forgotten.
    floor_bytes: u128,
    moved_bytes: u128,
    waited: Duration,
}

/// A wait that is going on. It counts even if it is abandoned for something else.
struct Wait<'a> {
    since: Instant,
    waited: &'a mut Duration,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        *self.waited += self.since.elapsed();
    }
}

impl Patience {
    /// A worker may make the gateway wait for so long in sum, until it has moved [`WORKER_BYTES_PER_S`] for all that time.
    pub(super) fn new(limit: Duration) -> Self {
        let floor_bytes = limit.as_millis() * u128::from(WORKER_BYTES_PER_S) / 1000;
        Self { limit, floor_bytes, moved_bytes: 0, waited: Duration::ZERO }
    }

    /// Waits for the worker; `None` when it has used up its time.
    pub(super) async fn wait<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        // Usually there is nothing to wait for, and no clock to read.
        let at_once = std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(output) = at_once.await {
            return Some(output);
        }
        let left = self.left();
        let _wait = Wait { since: Instant::now(), waited: &mut self.waited };
        timeout(left, future).await.ok()
    }

    /// So many bytes have moved.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved_bytes += bytes as u128;
        if self.moved_bytes >= self.floor_bytes {
            self.moved_bytes = 0;
            self.waited = Duration::ZERO;
        }
    }

    /// How much longer it may be waited for.
    pub(super) fn left(&self) -> Duration {
        self.limit.saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(400);
    const FLOOR_BYTES: usize = 409;

    async fn wait_for(patience: &mut Patience, time: Duration) -> bool {
        patience.wait(tokio::time::sleep(time)).await.is_some()
    }

    #[tokio::test]
    async fn short_waits_add_up_until_enough_has_moved() {
        let mut patience = Patience::new(LIMIT);
        assert!(wait_for(&mut patience, LIMIT * 3 / 5).await);
        patience.moved(FLOOR_BYTES - 1);
        assert!(!wait_for(&mut patience, LIMIT * 3 / 5).await, "a byte less than it must move");
        let mut patience = Patience::new(LIMIT);
        assert!(wait_for(&mut patience, LIMIT * 3 / 5).await);
        patience.moved(FLOOR_BYTES);
        assert!(wait_for(&mut patience, LIMIT * 3 / 5).await, "it has moved what it must");
    }

    #[tokio::test]
    async fn a_wait_that_is_abandoned_counts() {
        let mut patience = Patience::new(LIMIT);
        let abandoned = timeout(LIMIT / 2, patience.wait(std::future::pending::<()>())).await;
        assert!(abandoned.is_err());
        assert!(patience.left() <= LIMIT / 2, "{patience:?}");
        assert_eq!(patience.wait(async { 1 }).await, Some(1), "what is there needs no wait");
    }
}
