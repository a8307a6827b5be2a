//! Times of one thing that was done many times.

use std::time::Duration;

/// Some times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// One more.
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Those of another as well.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// All of them together.
    pub(crate) fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// So many in a hundred are at most as long. Of fewer than a hundred, the 99th is the longest.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(index).expect("at least one time").as_secs_f64() * 1000.0
    }

    /// How often a second it was done, one after another.
    pub(crate) fn rate(&self) -> f64 {
        per_second(self.count(), self.total())
    }
}

/// How often a second something was done.
pub(crate) fn per_second(count: usize, time: Duration) -> f64 {
    f64::from(u32::try_from(count).expect("a count that a bench reaches")) / time.as_secs_f64()
}
