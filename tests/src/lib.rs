//! The harness: it starts the real binaries, each deployment in a folder and on a loopback address of
//! its own, speaks HTTP to them byte by byte, and keeps the folder when a test fails.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a harness fails a test by panicking, and tells its reader where to look"
)]

pub mod address;
pub mod answer;
pub mod binaries;
pub mod browser;
pub mod client;
pub mod compose;
pub mod crowd;
pub mod deployment;
pub mod devtools;
pub mod engine;
pub mod everywhere;
pub mod fake_worker;
pub mod faketime;
pub mod host;
pub mod hostile_text;
pub mod journal_file;
pub mod large_phext;
pub mod ledger;
pub mod lone_worker;
pub mod machine;
pub mod mount;
pub mod nginx;
pub mod notice;
pub mod peers;
pub mod process;
pub mod prometheus;
pub mod random;
pub mod root;
pub mod scrape;
pub mod separate;
pub mod session;
pub mod setup;
pub mod strace;
pub mod target;
pub mod terminal;
pub mod test_time;
pub mod tls_curl;
pub mod tree;
pub mod utf8_body;
pub mod wait;
pub mod writers;
