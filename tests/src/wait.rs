//! Waiting for a condition, with a deadline. Tests never sleep: they wait for something.

use std::thread;
use std::time::{Duration, Instant};

/// How long a condition may take before a test fails. Generous: a loaded machine is slow, and a test
/// that passes does not wait for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The shortest and the longest time between two checks of a condition. What comes soon is seen soon, and what takes long
/// is checked seldom: a check may read a log or ask a server, and costs the programs under test their processor.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A pause is this part of the time that has passed, so a wait is longer than it must be by no more than that.
const PAUSE_SHARE: u32 = 32;

/// Waits until the condition gives a value.
///
/// # Panics
/// It does not within [`PATIENCE`].
pub fn until_some<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, condition).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Waits until the condition holds.
///
/// # Panics
/// It does not within [`PATIENCE`].
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(()));
}

/// Waits for a value, up to this long.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        let waited = began.elapsed();
        let left = limit.checked_sub(waited).filter(|left| !left.is_zero())?;
        thread::park_timeout((waited / PAUSE_SHARE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE).min(left));
    }
}

/// Lets a time pass that a server named, such as the one in `Retry-After`.
pub fn pass(time: Duration) {
    let began = Instant::now();
    while let Some(left) = time.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}
