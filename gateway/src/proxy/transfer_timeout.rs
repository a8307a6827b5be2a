//! Limits how long a worker may hold up a body, in either direction. The sum of many short waits is limited too: a worker that
//! moves a byte just before each deadline is cut off as well.

use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use pingora::prelude::timeout;
use sq_shared::limits::WORKER_BYTES_PER_S;

/// The waits in one direction of one attempt.
#[derive(Debug)]
pub(super) struct TransferTimeout {
    limit: Duration,
    /// How much must move before the waits are forgotten.
    floor_bytes: u128,
    moved_bytes: u128,
    waited: Duration,
}

/// A wait in progress. It counts even if it is cancelled.
struct Wait<'a> {
    since: Instant,
    waited: &'a mut Duration,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        *self.waited += self.since.elapsed();
    }
}

impl TransferTimeout {
    /// A worker may make the gateway wait for `limit` in sum, until it has moved [`WORKER_BYTES_PER_S`] times that.
    pub(super) fn new(limit: Duration) -> Self {
        let floor_bytes = limit.as_millis() * u128::from(WORKER_BYTES_PER_S) / 1000;
        Self { limit, floor_bytes, moved_bytes: 0, waited: Duration::ZERO }
    }

    /// Waits for the worker; `None` if it has used up its time.
    pub(super) async fn wait<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        // Usually there is nothing to wait for, and the clock need not be read.
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

    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved_bytes += bytes as u128;
        if self.moved_bytes >= self.floor_bytes {
            self.moved_bytes = 0;
            self.waited = Duration::ZERO;
        }
    }

    /// How much longer the gateway waits.
    pub(super) fn left(&self) -> Duration {
        self.limit.saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(400);
    const FLOOR_BYTES: usize = 409;

    async fn wait_for(transfer: &mut TransferTimeout, time: Duration) -> bool {
        transfer.wait(tokio::time::sleep(time)).await.is_some()
    }

    #[tokio::test]
    async fn short_waits_add_up_until_enough_has_moved() {
        let mut transfer = TransferTimeout::new(LIMIT);
        assert!(wait_for(&mut transfer, LIMIT * 3 / 5).await);
        transfer.moved(FLOOR_BYTES - 1);
        assert!(!wait_for(&mut transfer, LIMIT * 3 / 5).await, "one byte too few has moved");
        let mut transfer = TransferTimeout::new(LIMIT);
        assert!(wait_for(&mut transfer, LIMIT * 3 / 5).await);
        transfer.moved(FLOOR_BYTES);
        assert!(wait_for(&mut transfer, LIMIT * 3 / 5).await, "enough has moved");
    }

    #[tokio::test]
    async fn a_cancelled_wait_counts() {
        let mut transfer = TransferTimeout::new(LIMIT);
        let cancelled = timeout(LIMIT / 2, transfer.wait(std::future::pending::<()>())).await;
        assert!(cancelled.is_err());
        assert!(transfer.left() <= LIMIT / 2, "{transfer:?}");
        assert_eq!(transfer.wait(async { 1 }).await, Some(1), "what is ready needs no wait");
    }
}
