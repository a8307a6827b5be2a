//! How long a tenant's worker stays down after a crash: not at all after one that had served, so that a
//! worker that is killed comes back for the very next connection however often that happens; longer with
//! each crash of one that had not.

use std::time::{Duration, Instant};

/// The delay after the second crash in a row; it doubles with each further one.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest delay: what a client behind the gateway will still wait for.
pub const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// A worker that lived this long was healthy even if nobody asked it anything.
pub const HEALTHY_LIFE: Duration = Duration::from_secs(10);

/// What is known of a worker when it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// How long it was.
    pub lasted: Duration,
    /// Whether a command was applied in it.
    pub has_served: bool,
}

impl Life {
    /// That of a worker that could not be started.
    pub const NONE: Self = Self { lasted: Duration::ZERO, has_served: false };

    /// Whether there was nothing wrong with the worker: its crash counts as the first one.
    pub fn was_healthy(self) -> bool {
        self.has_served || self.lasted >= HEALTHY_LIFE
    }
}

/// The crashes in a row, and the time before which no worker is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    crashes_in_a_row: u32,
    retry_at: Option<Instant>,
}

impl Backoff {
    /// Notes a crash of a worker that had lived so.
    pub fn crashed(&mut self, now: Instant, life: Life) {
        if life.was_healthy() {
            self.crashes_in_a_row = 0;
        }
        self.crashes_in_a_row = self.crashes_in_a_row.saturating_add(1);
        self.retry_at = now.checked_add(delay_after(self.crashes_in_a_row));
    }

    /// Forgets all crashes: a worker ended as it should.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The time until which no worker may start, when it has not yet come.
    pub fn holds_until(&self, now: Instant) -> Option<Instant> {
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
    fn a_healthy_life_starts_the_count_again() {
        let now = Instant::now();
        let idle_for = |lasted| Life { lasted, has_served: false };
        let mut backoff = Backoff::default();
        backoff.crashed(now, Life::NONE);
        assert_eq!(backoff.holds_until(now), None);
        backoff.crashed(now, idle_for(HEALTHY_LIFE.checked_sub(Duration::from_millis(1)).unwrap()));
        assert_eq!(backoff.holds_until(now), Some(now + FIRST_DELAY));
        assert_eq!(backoff.holds_until(now + FIRST_DELAY), None);
        backoff.crashed(now, idle_for(HEALTHY_LIFE));
        assert_eq!(backoff.holds_until(now), None);
    }

    #[test]
    fn a_worker_that_served_comes_back_at_once_however_often_it_is_killed() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        backoff.crashed(now, Life::NONE);
        for _ in 0..200 {
            backoff.crashed(now, Life { lasted: Duration::from_millis(1), has_served: true });
            assert_eq!(backoff.holds_until(now), None);
        }
        backoff.crashed(now, Life::NONE);
        assert_eq!(backoff.holds_until(now), Some(now + FIRST_DELAY), "the next one never served");
    }
}
