//! A tenant who writes to thousands of phexts uses up neither descriptors nor memory.

use std::fs;

use sq_tests::lone_worker::LoneWorker;
use sq_tests::notice;

/// More than the store keeps open, and more than the descriptors that most systems give a process.
const PHEXTS: usize = 3000;

/// The store keeps 1,024 journals open; the rest is connections, saves and the runtime.
const DESCRIPTORS: usize = 1200;

#[test]
fn a_worker_does_not_keep_every_phext_open() {
    let folder = tempfile::tempdir().unwrap();
    let worker = LoneWorker::start(&folder.path().join("data"));
    let target = |verb: &str, number: usize| format!("/api/v2/{verb}?p=n{number}&c=1.1.1/1.1.1/1.1.1");
    let mut connection = worker.client.connect();
    let mut most = 0;
    for number in 0..PHEXTS {
        let head = worker.client.head("GET", &format!("{}&s=x", target("insert", number)));
        connection.send(format!("{head}\r\n").as_bytes());
        assert_eq!(connection.answer().status, 200, "{number}");
        if number % 100 == 0 {
            most = most.max(descriptors(&worker));
        }
    }
    most = most.max(descriptors(&worker));
    notice::say(&format!("{PHEXTS} phexts written to: {most} descriptors at most"));
    assert!(most <= DESCRIPTORS, "{most} descriptors");
    assert_eq!(worker.client.get(&target("select", 0)).ok(), "x");
    worker.stop();
}

fn descriptors(worker: &LoneWorker) -> usize {
    fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap().count()
}
