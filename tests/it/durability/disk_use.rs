//! What a tenant has on disk is bounded by its quota and a constant, whatever it writes and deletes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::Signal;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::mount::{self, Mount};
use sq_tests::notice::say;
use sq_tests::root::Root;
use sq_tests::scrape::Scrape;
use sq_tests::setup::Setup;
use sq_tests::{process, wait};

const MIB: u64 = 1024 * 1024;

const QUOTA_BYTES: u64 = MIB;

/// Journals, remembered keys, the reserve, and a new file beside the one whose place it takes.
const CONSTANT_BYTES: u64 = 20 * MIB;

/// Just under the length at which a new journal takes the place of the old one.
const LONG_TEXT_BYTES: usize = 260_000;

fn setup() -> Setup {
    let limits = "quota = \"1MiB\"\n".to_owned();
    Setup { limits, ..Setup::default() }
}

fn target(verb: &str, phext: &str) -> String {
    format!("/api/v2/{verb}?p={phext}&c=1.1.1/1.1.1/1.1.1")
}

fn update(client: &Client, phext: &str, text_bytes: usize) {
    client.post(&target("update", phext), "x".repeat(text_bytes)).ok();
}

fn keyed(client: &Client, verb: &str, phext: &str, key: &str, text: &str) -> String {
    let key = format!("Idempotency-Key: {key}\r\n");
    client.request("POST", &target(verb, phext), &key, Some(text.as_bytes())).ok().to_owned()
}

/// What a directory takes on disk, and the names of the files in it.
fn on_disk(directory: &Path) -> (u64, Vec<String>) {
    let (mut bytes, mut names) = (0, Vec::new());
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        // It may have gone meanwhile.
        bytes += entry.metadata().map_or(0, |metadata| metadata.blocks() * 512);
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort_unstable();
    (bytes, names)
}

/// Does something again and again, and asserts that the disk is never used beyond the bound.
fn bounded(directory: &Path, what: &str, times: usize, mut act: impl FnMut(usize)) {
    let mut most_bytes = 0;
    for number in 0..times {
        act(number);
        if number % 10 == 0 {
            most_bytes = most_bytes.max(on_disk(directory).0);
        }
    }
    most_bytes = most_bytes.max(on_disk(directory).0);
    say(&format!("{what}, {times} times: {most_bytes} bytes on disk at most"));
    assert!(most_bytes <= QUOTA_BYTES + CONSTANT_BYTES, "{what}: {most_bytes} bytes");
}

#[test]
fn texts_that_come_and_go_leave_no_files() {
    let running = Deployment::start(&setup());
    let (alice, directory) = (running.client_of("alice"), running.join("data/alice"));
    bounded(&directory, "a long text and its delete", 150, |number| {
        update(&alice, &format!("p{number}"), LONG_TEXT_BYTES);
        alice.post(&target("delete", &format!("p{number}")), "").ok();
    });
    let (bytes, names) = on_disk(&directory);
    assert_eq!(names, [".keys", ".reserve"]);
    wait::until("the pool says what is on disk", || {
        Scrape::of_pool(running.address).value("sq_pool_disk_bytes{tenant=\"alice\"}") == bytes as f64
    });
}

#[test]
fn short_texts_after_long_ones_leave_no_long_journals() {
    let running = Deployment::start(&setup());
    let (alice, directory) = (running.client_of("alice"), running.join("data/alice"));
    bounded(&directory, "a long text that becomes a short one", 120, |number| {
        update(&alice, &format!("p{number}"), LONG_TEXT_BYTES);
        update(&alice, &format!("p{number}"), 1);
    });
    bounded(&directory, "many short writes", 3000, |number| {
        update(&alice, &format!("p{}", number % 120), 1 + number % 2);
    });
}

#[test]
fn keys_alone_leave_one_file() {
    let running = Deployment::start(&setup());
    let (alice, directory) = (running.client_of("alice"), running.join("data/alice"));
    for number in 0..1500 {
        let (phext, key) = (format!("p{number}"), number.to_string());
        assert_eq!(keyed(&alice, "delete", &phext, "key", ""), "Removed 0 bytes");
        assert_eq!(keyed(&alice, "delete", "one", &key, ""), "Removed 0 bytes");
    }
    // The last key goes there just after its answer.
    wait::until("no other file", || on_disk(&directory).1 == [".keys", ".reserve"]);
    let (bytes, _) = on_disk(&directory);
    assert!(bytes < 2 * MIB, "{bytes}");
}

#[test]
fn a_write_that_comes_again_is_known_when_its_phext_is_gone() {
    let running = Deployment::start(&setup());
    let alice = running.client_of("alice");
    let writes =
        [("insert", "1", "text"), ("delete", "2", ""), ("update", "3", "other"), ("delete", "4", "")];
    let ask = || writes.map(|(verb, key, text)| keyed(&alice, verb, "notes", key, text));
    let first = ask();
    assert_eq!(first, ["Inserted 4 bytes", "Removed 4 bytes", "Updated 5 bytes", "Removed 5 bytes"]);
    for _ in 0..3 {
        assert_eq!(ask(), first);
        assert_eq!(alice.get(&target("select", "notes")).ok(), "");
        let worker = running.worker_of("alice").unwrap();
        process::signal(worker.pid, Signal::KILL);
        wait::until("its end", || running.worker_of("alice").is_none_or(|other| other.pid != worker.pid));
    }
    // The same keys of another phext are other keys.
    assert_eq!(keyed(&alice, "insert", "other", "1", "text"), "Inserted 4 bytes");
    assert_eq!(alice.get(&target("select", "other")).ok(), "text");
}

#[test]
fn the_neighbours_have_their_room() {
    if !mount::works("a small disk in memory", &[]) {
        return;
    }
    let root = Root::new(&setup());
    let disk = Mount::tmpfs(&root.join("data"), "48m");
    let running = Deployment::up(root, &[]);
    let (alice, bob) = (running.client_of("alice"), running.client_of("bob"));
    for number in 0..300 {
        update(&alice, &format!("p{number}"), LONG_TEXT_BYTES);
        if number % 2 == 0 {
            alice.post(&target("delete", &format!("p{number}")), "").ok();
        } else {
            update(&alice, &format!("p{number}"), 1);
        }
        if number % 30 == 0 {
            update(&bob, "notes", 500_000);
        }
    }
    drop(running);
    drop(disk);
}
