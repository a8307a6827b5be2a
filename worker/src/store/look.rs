//! How often reads look at a phext's file: those of one turn of the worker's thread share one look.
//!
//! A turn begins when the thread has come to rest, waits for news, and gets some. As a rule whatever it then serves was
//! sent before, so who edits a file and then asks gets the edit. A thread that has work for long does not rest, and takes
//! up what comes meanwhile: therefore a look also ages, and the age is what can be promised.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a look stands at most: a read may miss an edit that is newer than this, and no other. Among 32 busy
/// connections it saves three looks of four. It is far less than a person's or a shell's way from an edit to a request,
/// or than the step of the clock that files have (1 to 10 ms, `CONFIG_HZ`).
const STANDS_AT_MOST: Duration = Duration::from_micros(100);

/// Counts the turns of the worker's thread. The runtime knows when one ends, and tells a clone of this; atomic only
/// because the runtime wants to be told something that may cross threads.
#[derive(Debug, Clone)]
pub struct Turns {
    ended: Arc<AtomicU64>,
    stands_at_most: Duration,
}

impl Turns {
    /// The thread has nothing left to do, and is about to wait for news.
    pub fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// A look at this moment.
    pub(super) fn look(&self) -> Look {
        Look { turn: self.current(), at: Instant::now() }
    }

    /// Whether a look is as good as another one now.
    pub(super) fn stands(&self, look: Look) -> bool {
        // In another turn there is no need of a clock.
        look.turn == self.current() && self.is_young(look, Instant::now())
    }

    fn current(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    fn is_young(&self, look: Look, now: Instant) -> bool {
        now.saturating_duration_since(look.at) < self.stands_at_most
    }

    /// Turns in which a look stands to the end, however long they are.
    #[cfg(test)]
    pub(super) fn without_age() -> Self {
        Self { stands_at_most: Duration::MAX, ..Self::default() }
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self { ended: Arc::default(), stands_at_most: STANDS_AT_MOST }
    }
}

/// When a file was looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    turn: u64,
    at: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_stands_until_it_is_too_old() {
        let turns = Turns::default();
        let look = turns.look();
        assert!(turns.is_young(look, look.at));
        assert!(turns.is_young(look, look.at + STANDS_AT_MOST - Duration::from_nanos(1)));
        assert!(!turns.is_young(look, look.at + STANDS_AT_MOST));
        while turns.stands(look) {}
        assert!(look.at.elapsed() >= STANDS_AT_MOST);
    }

    #[test]
    fn a_look_stands_until_its_turn_ends() {
        let turns = Turns::without_age();
        let look = turns.look();
        assert!(turns.stands(look));
        turns.clone().end();
        assert!(!turns.stands(look));
        assert!(turns.stands(turns.look()));
    }
}
