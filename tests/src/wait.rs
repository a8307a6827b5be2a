//! Waiting for a condition, with a deadline. Tests never sleep: they wait for something.

use std::thread;
use std::time::{Duration, Instant};

/// How long a condition may take before a test fails. Generous: a loaded machine is slow, and a test
/// that passes does not wait for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(2);

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

/// Waits for a value at most so long.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::park_timeout(PAUSE);
    }
}

/// Lets a time pass that a server named, such as the one in `Retry-After`.
pub fn pass(time: Duration) {
    within(time, || None::<()>);
}
