//! How long the pool waits before it restarts a crashed worker. It doesn't wait after a worker that had served, so that
//! one that is killed is back for the next connection however often that happens. After one that never served, it waits
//! longer with each crash.

use std::time::{Duration, Instant};

/// The delay after the second crash in a row. It doubles with each further one.
pub(crate) const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest delay: as long as a client behind the gateway still waits.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// A worker that lived this long was healthy even if it had no request.
pub(crate) const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// How long a worker lived, and whether it served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) lasted: Duration,
    pub(crate) has_served: bool,
}

impl Lifetime {
    /// Of a worker that failed to start.
    pub(crate) const NONE: Self = Self { lasted: Duration::ZERO, has_served: false };

    /// A healthy worker's crash counts as the first one again.
    fn was_healthy(self) -> bool {
        self.has_served || self.lasted >= HEALTHY_AFTER
    }
}

/// The crashes in a row, and the time before which no worker is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backoff {
    crashes_in_a_row: u32,
    retry_at: Option<Instant>,
}

impl Backoff {
    pub(crate) fn crashed(&mut self, now: Instant, life: Lifetime) {
        if life.was_healthy() {
            self.crashes_in_a_row = 0;
        }
        self.crashes_in_a_row = self.crashes_in_a_row.saturating_add(1);
        self.retry_at = now.checked_add(delay_after(self.crashes_in_a_row));
    }

    /// Forgets all crashes, after a worker that exited normally.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// The time before which no worker may start; `None` if one may start now.
    pub(crate) fn waits_until(&self, now: Instant) -> Option<Instant> {
        self.retry_at.filter(|retry_at| *retry_at > now)
    }
}

fn delay_after(crashes_in_a_row: u32) -> Duration {
    match crashes_in_a_row.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_crash_costs_nothing_and_the_delay_doubles_to_its_limit() {
        let delays_ms: Vec<u128> = (1..=10).map(|crashes| delay_after(crashes).as_millis()).collect();
        assert_eq!(delays_ms, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(delay_after(u32::MAX), LONGEST_DELAY);
    }

    #[test]
    fn a_healthy_lifetime_restarts_the_count() {
        let now = Instant::now();
        let idle_for = |lasted| Lifetime { lasted, has_served: false };
        let mut backoff = Backoff::default();
        backoff.crashed(now, Lifetime::NONE);
        assert_eq!(backoff.waits_until(now), None);
        backoff.crashed(now, idle_for(HEALTHY_AFTER.checked_sub(Duration::from_millis(1)).unwrap()));
        assert_eq!(backoff.waits_until(now), Some(now + FIRST_DELAY));
        assert_eq!(backoff.waits_until(now + FIRST_DELAY), None);
        backoff.crashed(now, idle_for(HEALTHY_AFTER));
        assert_eq!(backoff.waits_until(now), None);
    }

    #[test]
    fn a_worker_that_served_is_restarted_at_once_however_often_it_is_killed() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        backoff.crashed(now, Lifetime::NONE);
        for _ in 0..200 {
            backoff.crashed(now, Lifetime { lasted: Duration::from_millis(1), has_served: true });
            assert_eq!(backoff.waits_until(now), None);
        }
        backoff.crashed(now, Lifetime::NONE);
        assert_eq!(backoff.waits_until(now), Some(now + FIRST_DELAY), "the next one never served");
    }
}
