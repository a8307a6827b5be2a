//! Lines for whoever runs the tests: what was left out and why, and how much was done. They go to standard
//! error past the test runner, which hides what a test that passes prints.

use std::io::Write;

/// Says something about a test that passes.
pub fn say(line: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says that a test is left out for want of something that can be installed; where `CI=true`, that is a
/// failure.
///
/// # Panics
/// `CI=true`.
pub fn skip(what: &str) {
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "nothing may be skipped here: {what}");
    say(&format!("SKIPPED {what}"));
}

/// Says that a test is left out because this machine does not allow it, and never will.
pub fn not_allowed_here(what: &str) {
    say(&format!("SKIPPED {what}"));
}
