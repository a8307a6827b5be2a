//! Notices for the person who runs the tests: what was skipped and why, and how much was done. They go to standard
//! error, bypassing the test runner, which hides the output of passing tests.

use std::io::Write;

/// Prints a notice about a passing test.
pub fn say(line: &str) {
    // Standard error may be closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints that a test is skipped because a program is not installed; with `CI=true`, that is a failure.
///
/// # Panics
/// `CI=true`.
pub fn skip(what: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "nothing may be skipped here: {what}");
    say(&format!("SKIPPED {what}"));
}

/// Prints that a test is skipped because this machine does not allow it, and cannot.
pub fn not_allowed_here(what: &str) {
    say(&format!("SKIPPED {what}"));
}
