//! Root starts the gateway in its own terminal. A gateway that is taken over afterwards types a command there, which root's
//! shell would run.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use rustix::process::geteuid;
use sq_tests::{binaries, notice, process};

/// A user that owns nothing, on every Linux.
const NOBODY: u32 = 65534;

#[test]
fn what_has_given_root_up_cannot_type_into_roots_terminal() {
    if !geteuid().is_root() {
        return notice::not_allowed_here("typing into root's terminal: this is not root");
    }
    if binaries::on_path("script").is_none() {
        return notice::skip("typing into root's terminal: script is missing; apt-get install bsdutils");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, user) in [("roots", 0), ("theirs", NOBODY)] {
        fs::create_dir(path(name)).unwrap();
        chown(path(name), Some(user), Some(user)).unwrap();
    }
    let typed = |system: &str| {
        let line = format!("{} type {}", env!("CARGO_BIN_EXE_escape"), path(system).display());
        process::run(Command::new("script").args(["-qec", &line, "/dev/null"])).stdout
    };
    // Who stays root may do it: so it is root's terminal, and the attempt is a good one.
    assert_eq!(typed("roots").trim(), "allowed");
    let refused = typed("theirs");
    assert!(refused.contains("denied Operation not permitted"), "{refused}");
}
