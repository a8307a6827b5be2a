//! The file is renamed and opened again while it is written to; no line is lost, torn or doubled.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use sq_tests::deployment::Deployment;
use sq_tests::notice::say;
use sq_tests::wait;

use super::{AT, assert_complete_and_in_order, lines_in, setup, write_concurrently};

const WRITERS: usize = 8;
const ROTATIONS: usize = 20;

/// Lines in a file before it is rotated.
const LINES: usize = 10;

#[test]
fn no_line_is_lost_torn_or_doubled_by_a_rotation() {
    for audit in ["try", "require"] {
        let running = Deployment::start(&setup(audit));
        let client = running.client_of("alice");
        let is_done = AtomicBool::new(false);
        let seen = thread::scope(|scope| {
            let writing =
                scope.spawn(|| write_concurrently(&client, WRITERS, |_| !is_done.load(Ordering::Relaxed)));
            for number in 0..ROTATIONS {
                rotate(&running, number);
            }
            is_done.store(true, Ordering::Relaxed);
            writing.join().unwrap()
        });
        let root = running.stop();
        let names =
            (0..ROTATIONS).map(|number| format!("audit.log.{number}")).chain(["audit.log".to_owned()]);
        let lines: Vec<_> = names.flat_map(|name| lines_in(&root.join(name))).collect();
        assert_complete_and_in_order(&seen, &lines);
        say(&format!(
            "audit = {audit:?}: {ROTATIONS} rotations, {} writes, {} lines",
            seen.len(),
            lines.len()
        ));
    }
}

fn rotate(running: &Deployment, number: usize) {
    let current = running.join("audit.log");
    wait::until("some lines", || {
        fs::read(&current).is_ok_and(|log| log.iter().filter(|byte| **byte == b'\n').count() >= LINES)
    });
    fs::rename(&current, running.join(format!("audit.log.{number}"))).unwrap();
    running.signal(Signal::HUP);
    wait::until("the new file", || current.exists());
    assert_eq!(fs::metadata(&current).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn deleted_file_is_created_again_without_a_signal() {
    let running = Deployment::start(&setup("require"));
    let client = running.client_of("alice");
    let update = format!("/api/v2/update?p=a&{AT}");
    client.post(&update, "1").ok();
    fs::remove_file(running.join("audit.log")).unwrap();
    client.post(&update, "22").ok();
    let lines = lines_in(&running.join("audit.log"));
    assert!(lines.len() == 1 && lines[0]["bytes"] == 2, "{lines:?}");
}

#[test]
fn torn_line_is_ended_before_the_next() {
    let root = sq_tests::root::Root::new(&setup("require"));
    root.write("audit.log", "{\"time\":\"2026-01-01T00:00:00.0");
    let running = Deployment::up(root, &[]);
    running.client_of("alice").post(&format!("/api/v2/update?p=a&{AT}"), "x").ok();
    let log = running.read("audit.log");
    let (torn, whole) = log.split_once('\n').unwrap();
    assert_eq!(torn, "{\"time\":\"2026-01-01T00:00:00.0");
    let line: serde_json::Value = serde_json::from_str(whole).unwrap();
    assert_eq!(line["tenant"], "alice");
}
