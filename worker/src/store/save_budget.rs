//! How often a phext may be saved. A save writes the whole phext, however little has changed, so the writes since the last
//! save must pay for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sq_shared::phext_name::PhextName;

/// How many saved bytes one written byte pays for.
const SAVED_BYTES_PER_BYTE: u64 = 3;

/// A write counts as at least this. So a phext of up to three times as many bytes is saved before each answer: people look
/// at its file right after a request.
pub(super) const SMALLEST_WRITE_BYTES: u64 = 64 * 1024;

/// However little is written, time pays for one save per period.
pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// What is left to pay for saves of one phext.
#[derive(Debug, Default, Clone)]
pub(super) struct SaveBudget {
    /// From writes.
    bytes: u64,
    /// Since when time pays; `None` before the first save, which is free.
    since: Option<Instant>,
    pub(super) last_save_bytes: u64,
}

impl SaveBudget {
    pub(super) fn pay_in(&mut self, written_bytes: u64) {
        let counted_bytes = written_bytes.max(SMALLEST_WRITE_BYTES);
        self.bytes = self.bytes.saturating_add(counted_bytes.saturating_mul(SAVED_BYTES_PER_BYTE));
    }

    /// When a save is paid for if nothing more is paid in. It may be in the past.
    pub(super) fn paid_at(&self, file_bytes: u64, now: Instant) -> Instant {
        let Some(since) = self.since else { return now };
        let missing_bytes = file_bytes.saturating_sub(self.bytes);
        if missing_bytes == 0 {
            return now;
        }
        since + PERIOD.mul_f64(missing_bytes as f64 / file_bytes as f64)
    }

    /// Whether time has not paid for the next save yet.
    fn is_owing(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) < PERIOD)
    }

    /// A save begins. Time starts to pay for the next one.
    pub(super) fn spend(&mut self, file_bytes: u64, now: Instant) {
        self.bytes = self.bytes.saturating_sub(file_bytes);
        self.since = Some(now);
        self.last_save_bytes = file_bytes;
    }
}

/// The budgets of phexts that are not in memory, or have been deleted. A phext that is loaded again continues with its
/// budget, because the first save of a new one is free.
#[derive(Debug, Default)]
pub(super) struct Budgets(HashMap<PhextName, SaveBudget>);

impl Budgets {
    /// Above this number, budgets that time has paid back are dropped.
    const BUDGETS: usize = 1024;

    pub(super) fn put(&mut self, name: PhextName, budget: SaveBudget, now: Instant) {
        if self.0.len() >= Self::BUDGETS {
            self.0.retain(|_, budget| budget.is_owing(now));
        }
        self.0.insert(name, budget);
    }

    pub(super) fn take(&mut self, name: &PhextName) -> Option<SaveBudget> {
        self.0.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn a_small_phext_is_paid_for_by_any_write_and_a_larger_one_is_not() {
        let (mut budget, now) = (SaveBudget::default(), Instant::now());
        budget.spend(MIB, now);
        budget.pay_in(1);
        assert_eq!(budget.paid_at(3 * SMALLEST_WRITE_BYTES, now), now);
        assert!(budget.paid_at(3 * SMALLEST_WRITE_BYTES + 1, now) > now);
    }

    #[test]
    fn time_pays_for_one_save_a_minute() {
        let (mut budget, now) = (SaveBudget::default(), Instant::now());
        assert_eq!(budget.paid_at(100 * MIB, now), now, "the first one is free");
        budget.spend(100 * MIB, now);
        assert_eq!(budget.paid_at(100 * MIB, now), now + PERIOD);
        budget.spend(100 * MIB, now + 10 * PERIOD);
        assert_eq!(budget.paid_at(100 * MIB, now), now + 11 * PERIOD, "time that passed is not saved up");
    }

    proptest! {
        /// Whatever is written when, saves as early as they are paid for write at most three times what the writes did
        /// (each counted with 64 KiB at least), and one save for each minute.
        #[test]
        fn saves_write_in_proportion_to_the_writes(
            steps in prop::collection::vec((1..20 * MIB, 0..MIB, 0..90_000_u64), 1..100)
        ) {
            let start = Instant::now();
            let (mut budget, mut now) = (SaveBudget::default(), start);
            let (mut written_bytes, mut saved_bytes, mut largest_bytes) = (0, 0, 0);
            for (file_bytes, write_bytes, pause_ms) in steps {
                now += Duration::from_millis(pause_ms);
                budget.pay_in(write_bytes);
                written_bytes += write_bytes.max(SMALLEST_WRITE_BYTES);
                largest_bytes = file_bytes.max(largest_bytes);
                if budget.paid_at(file_bytes, now) <= now {
                    budget.spend(file_bytes, now);
                    saved_bytes += file_bytes;
                }
            }
            let minutes = (now - start).as_secs_f64() / PERIOD.as_secs_f64();
            let by_time_bytes = largest_bytes as f64 * (1.0 + minutes);
            prop_assert!(saved_bytes as f64 <= 3.0 * written_bytes as f64 + by_time_bytes);
        }
    }
}
