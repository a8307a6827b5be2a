//! How long a tenant's worker stays down after a crash: not at all after the first one, so that a
//! worker that was killed comes back for the very next connection, then longer with each crash.

use std::time::{Duration, Instant};

/// The delay after the second crash in a row; it doubles with each further one.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest delay: what a client behind the gateway will still wait for.
pub const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// A worker that lived this long was healthy: its crash counts as the first one.
pub const HEALTHY_LIFE: Duration = Duration::from_secs(10);

/// The crashes in a row, and the time before which no worker is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    crashes_in_a_row: u32,
    retry_at: Option<Instant>,
}

impl Backoff {
    /// Notes a crash of a worker that had lived so long.
    pub fn crashed(&mut self, now: Instant, lived: Duration) {
        if lived >= HEALTHY_LIFE {
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
        let mut backoff = Backoff::default();
        backoff.crashed(now, Duration::ZERO);
        assert_eq!(backoff.holds_until(now), None);
        backoff.crashed(now, HEALTHY_LIFE.checked_sub(Duration::from_millis(1)).unwrap());
        assert_eq!(backoff.holds_until(now), Some(now + FIRST_DELAY));
        assert_eq!(backoff.holds_until(now + FIRST_DELAY), None);
        backoff.crashed(now, HEALTHY_LIFE);
        assert_eq!(backoff.holds_until(now), None);
    }
}
