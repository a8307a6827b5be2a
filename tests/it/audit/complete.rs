//! No line is missing or out of order: with concurrent writers, at a stop, and after SIGKILL.

use std::collections::HashSet;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use sq_tests::deployment::Deployment;
use sq_tests::notice::say;
use sq_tests::root::Root;
use sq_tests::wait;

use super::{
    AT, Seen, assert_complete_and_in_order, full_pipe, lines_in, setup, text, write, write_concurrently,
};

const WRITERS: usize = 8;

/// Writes per writer.
const WRITES: usize = 60;

/// Writes that are acknowledged before the gateway is killed.
const BEFORE_THE_KILL: usize = 200;

#[test]
fn each_write_of_eight_writers_has_one_line_in_order() {
    for audit in ["try", "require"] {
        let running = Deployment::start(&setup(audit));
        let client = running.client_of("alice");
        let seen = write_concurrently(&client, WRITERS, |number| number < WRITES);
        assert_eq!(seen.len(), WRITERS * WRITES);
        assert!(seen.iter().all(|write| write.status == Some(200)));
        // With `try` no response waits for its line; the stop waits for all of them.
        let root = running.stop();
        assert_complete_and_in_order(&seen, &lines_in(&root.join("audit.log")));
    }
}

#[test]
fn what_was_acknowledged_has_its_line_when_the_gateway_is_killed() {
    let mut running = Deployment::start(&setup("require"));
    let client = running.client_of("alice");
    let (acknowledged, is_dead) = (AtomicUsize::new(0), AtomicBool::new(false));
    let seen: Vec<Seen> = thread::scope(|scope| {
        let writer = || {
            let mut seen = Vec::new();
            while !is_dead.load(Ordering::Relaxed) {
                let write = write(&client, "+");
                acknowledged.fetch_add(usize::from(write.status == Some(200)), Ordering::Relaxed);
                seen.push(write);
            }
            seen
        };
        let threads: Vec<_> = (0..WRITERS).map(|_| scope.spawn(writer)).collect();
        wait::until("some writes", || acknowledged.load(Ordering::Relaxed) >= BEFORE_THE_KILL);
        running.signal(Signal::KILL);
        running.ended();
        is_dead.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let lines = lines_in(&running.join("audit.log"));
    let ids: HashSet<&str> = lines.iter().map(|line| text(line, "request_id")).collect();
    assert_eq!(ids.len(), lines.len(), "a line is there twice");
    let acknowledged: Vec<&Seen> = seen.iter().filter(|write| write.status == Some(200)).collect();
    let missing: Vec<_> = acknowledged.iter().filter(|write| !ids.contains(write.id.as_str())).collect();
    assert!(missing.is_empty(), "acknowledged, and not in the log: {missing:#?}");
    say(&format!("audit: {} acknowledged writes before SIGKILL, {} lines", acknowledged.len(), lines.len()));
}

/// How long the test watches a response that must wait.
const A_WHILE: Duration = Duration::from_millis(500);

#[test]
fn require_delays_only_the_response_of_the_write() {
    for (audit, waits) in [("try", false), ("require", true)] {
        let root = Root::new(&setup(audit));
        let mut pipe = full_pipe(&root.join("audit.log"));
        let running = Deployment::up(root, &[]);
        let client = running.client_of("alice");
        let mut connection = client.connect();
        let update = client.head("GET", &format!("/api/v2/update?p=a&{AT}&s=text"));
        connection.send((update + "Connection: close\r\n\r\n").as_bytes());
        wait::until("the write", || client.get(&format!("/api/v2/select?p=a&{AT}")).ok() == "text");
        assert_eq!(connection.hears_within(A_WHILE), !waits, "audit = {audit:?}");
        let mut log = String::new();
        wait::until("the line", || {
            let mut bytes = [0; 64 << 10];
            let count = pipe.read(&mut bytes).unwrap_or_default();
            log.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            log.contains("\"status\":200}\n")
        });
        assert_eq!(connection.answer().ok(), "Updated 4 bytes");
        running.stop();
    }
}
