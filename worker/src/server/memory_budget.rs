//! Memory that large bodies, or large answers, share, so that many of them at once cannot take all there is.

use std::sync::Arc;
use std::time::Duration;

use sq_shared::problem::{Code, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Up to this size nothing is reserved, so that a large transfer never delays a small one. With every connection in use,
/// these take 32 MiB together. It is also the unit of reservation.
const SMALL_KIB: u64 = 64;

/// How long to wait for memory. Two that each hold some and wait for more may wait for each other: the first to time out
/// is refused, and the other goes on.
const WAIT: Duration = Duration::from_secs(10);

/// A number of bytes to reserve from.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    permits: Arc<Semaphore>,
    kib: u32,
    advice: &'static str,
}

/// Memory reserved from a budget; returned when dropped.
#[derive(Debug, Default)]
pub(super) struct Reservation(Option<OwnedSemaphorePermit>);

impl MemoryBudget {
    /// `advice` is the detail of the problem that a client gets when the wait times out.
    pub(super) fn new(kib: u32, advice: &'static str) -> Self {
        Self { permits: Arc::new(Semaphore::new(kib as usize)), kib, advice }
    }

    /// Reserves memory for this many bytes, and waits until it is free. More than the whole budget reserves all of it.
    pub(super) async fn reserve(&self, bytes: u64) -> Result<Reservation, Problem> {
        let mut reservation = Reservation::default();
        self.grow(&mut reservation, bytes).await?;
        Ok(reservation)
    }

    /// Grows a reservation to this many bytes; returns whether it was smaller.
    pub(super) async fn grow(&self, reservation: &mut Reservation, bytes: u64) -> Result<bool, Problem> {
        let missing = self.permits_for(bytes).saturating_sub(reservation.kib());
        if missing == 0 {
            return Ok(false);
        }
        match timeout(WAIT, Arc::clone(&self.permits).acquire_many_owned(missing)).await {
            Ok(Ok(more)) => {
                reservation.add(more);
                Ok(true)
            }
            // Timed out: the semaphore is never closed.
            _ => Err(Problem::new(Code::WorkerUnavailable, self.advice).retry_after_s(WAIT.as_secs())),
        }
    }

    /// Whether a reservation is larger than this many bytes need.
    pub(super) fn holds_more_than(&self, reservation: &Reservation, bytes: u64) -> bool {
        reservation.kib() > self.permits_for(bytes)
    }

    /// Returns the part of a reservation that this many bytes do not need.
    pub(super) fn shrink(&self, reservation: &mut Reservation, bytes: u64) {
        let surplus = reservation.kib().saturating_sub(self.permits_for(bytes));
        if let Some(permit) = &mut reservation.0 {
            drop(permit.split(surplus as usize));
        }
        reservation.0.take_if(|permit| permit.num_permits() == 0);
    }

    #[cfg(test)]
    pub(super) fn reserved_kib(&self) -> usize {
        self.kib as usize - self.permits.available_permits()
    }

    fn permits_for(&self, bytes: u64) -> u32 {
        let kib = bytes.div_ceil(1024);
        if kib <= SMALL_KIB {
            return 0;
        }
        u32::try_from(kib.next_multiple_of(SMALL_KIB)).unwrap_or(self.kib).min(self.kib)
    }
}

impl Reservation {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn kib(&self) -> u32 {
        self.0.as_ref().map_or(0, |permit| u32::try_from(permit.num_permits()).unwrap_or(u32::MAX))
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.0 {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET_KIB: u32 = 1024;

    #[test]
    fn small_sizes_reserve_nothing_and_the_largest_the_whole_budget() {
        let budget = MemoryBudget::new(BUDGET_KIB, "");
        let kib = |bytes| budget.permits_for(bytes);
        assert_eq!((kib(0), kib(64 * 1024), kib(64 * 1024 + 1)), (0, 0, 128));
        assert_eq!(
            (kib(1024 * 1024), kib(1024 * 1024 + 1), kib(u64::MAX)),
            (BUDGET_KIB, BUDGET_KIB, BUDGET_KIB)
        );
    }

    #[tokio::test]
    async fn a_reservation_shrinks() {
        let budget = MemoryBudget::new(BUDGET_KIB, "");
        let mut reservation = budget.reserve(512 * 1024).await.unwrap();
        assert!(
            budget.holds_more_than(&reservation, 448 * 1024)
                && !budget.holds_more_than(&reservation, 448 * 1024 + 1)
        );
        budget.shrink(&mut reservation, 100 * 1024);
        assert_eq!(budget.reserved_kib(), 128);
        budget.shrink(&mut reservation, 64 * 1024);
        assert!(reservation.is_empty() && budget.reserved_kib() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_times_out_with_a_problem_and_dropped_memory_is_free_again() {
        let budget = MemoryBudget::new(BUDGET_KIB, "wait");
        let mut one = budget.reserve(400 * 1024).await.unwrap();
        let mut other = budget.reserve(400 * 1024).await.unwrap();
        budget.reserve(1024).await.unwrap();
        // Each waits for what the other holds: the first times out, and the second gets it.
        let first = async {
            let refused = budget.grow(&mut one, 900 * 1024).await.unwrap_err();
            drop(std::mem::take(&mut one));
            refused
        };
        let second = async {
            tokio::time::sleep(WAIT / 2).await;
            budget.grow(&mut other, 900 * 1024).await.unwrap()
        };
        let (refused, grown) = tokio::join!(first, second);
        assert_eq!((refused.code, refused.retry_after_s, grown), (Code::WorkerUnavailable, Some(10), true));
        drop(other);
        budget.reserve(u64::MAX).await.unwrap();
    }
}
