//! How long a test goes on that could go on for any time: a load, random input, an attack.

use std::time::Duration;

/// The number of seconds. More seconds try more cases: `.ci/run` sets 60.
const VARIABLE: &str = "SQ_TEST_SECONDS";

/// When the variable is not set: `cargo test` is for each change, and has many such tests.
const DEFAULT: Duration = Duration::from_secs(5);

/// How long such a test goes on.
///
/// # Panics
/// The variable is not a number of seconds, or is 0.
pub fn test_time() -> Duration {
    let Ok(text) = std::env::var(VARIABLE) else { return DEFAULT };
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0);
    Duration::from_secs(seconds.unwrap_or_else(|| panic!("{VARIABLE}={text} is not a number of seconds")))
}

/// Whether there is time for the full numbers of a test that takes long because it does a thing very often.
pub fn is_long() -> bool {
    test_time() >= Duration::from_secs(60)
}
