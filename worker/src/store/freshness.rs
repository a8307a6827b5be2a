//! How often reads compare a phext's file with the one in memory: those of one tick of the event loop share one `stat`.
//!
//! A tick begins when the thread has had nothing to do, waits for events, and gets some. As a rule the requests that it then
//! serves were sent before, so a client that edits a file and then asks gets the edit. A busy thread does not wait, and
//! serves what arrives meanwhile. Therefore a `stat` also expires, and its lifetime is what can be promised.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a `stat` may be used: a read may miss an edit that is younger than this, and no other. Among 32 busy connections
/// it saves three of four calls. It is far shorter than what a person or a shell needs from an edit to a request, and than
/// the step of the clock that files have (1 to 10 ms, `CONFIG_HZ`).
const LIFETIME: Duration = Duration::from_micros(100);

/// Counts the ticks of the worker's event loop. The runtime reports the end of each one to a clone; the count is atomic only
/// because the runtime's callback must be `Sync`.
#[derive(Debug, Clone)]
pub struct LoopTick {
    ended: Arc<AtomicU64>,
    lifetime: Duration,
}

impl LoopTick {
    /// The thread has nothing left to do, and is about to wait for events.
    pub fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// A stamp for a `stat` that is made now.
    pub(super) fn stamp(&self) -> StatStamp {
        StatStamp { tick: self.current(), at: Instant::now() }
    }

    /// Whether a `stat` with this stamp may still be used.
    pub(super) fn is_fresh(&self, stamp: StatStamp) -> bool {
        // In another tick there is no need to read the clock.
        stamp.tick == self.current() && self.is_young(stamp, Instant::now())
    }

    fn current(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    fn is_young(&self, stamp: StatStamp, now: Instant) -> bool {
        now.saturating_duration_since(stamp.at) < self.lifetime
    }

    /// Stamps stay fresh until the tick ends, however long it is.
    #[cfg(test)]
    pub(super) fn without_expiry() -> Self {
        Self { lifetime: Duration::MAX, ..Self::default() }
    }
}

impl Default for LoopTick {
    fn default() -> Self {
        Self { ended: Arc::default(), lifetime: LIFETIME }
    }
}

/// When a file was compared with the one in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatStamp {
    tick: u64,
    at: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_expires() {
        let tick = LoopTick::default();
        let stamp = tick.stamp();
        assert!(tick.is_young(stamp, stamp.at));
        assert!(tick.is_young(stamp, stamp.at + LIFETIME - Duration::from_nanos(1)));
        assert!(!tick.is_young(stamp, stamp.at + LIFETIME));
        while tick.is_fresh(stamp) {}
        assert!(stamp.at.elapsed() >= LIFETIME);
    }

    #[test]
    fn a_stamp_is_fresh_until_its_tick_ends() {
        let tick = LoopTick::without_expiry();
        let stamp = tick.stamp();
        assert!(tick.is_fresh(stamp));
        tick.clone().end();
        assert!(!tick.is_fresh(stamp));
        assert!(tick.is_fresh(tick.stamp()));
    }
}
