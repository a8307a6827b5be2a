//! A disk that stalls: writes wait for it, and so does what only the disk has, and nothing else.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use sq_tests::client::Connection;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::mount::{self, Mount};
use sq_tests::root::Root;
use sq_tests::strace::{self, Strace};
use sq_tests::wait;

/// Longer than a phext that is saved before each answer: only its journal is written to.
const LARGE_BYTES: usize = 2 * 1024 * 1024;

/// A write of each kind: one that is saved at once, one that goes to the journal alone, one that begins a journal, and
/// one that frees room.
const STALLED: [&str; 4] = [
    "update?p=small&c=1.1.1/1.1.1/1.1.1&s=new",
    "update?p=large&c=1.1.1/1.1.1/1.1.2&s=new",
    "insert?p=first&c=1.1.1/1.1.1/1.1.1&s=new",
    "delete?p=other&c=1.1.1/1.1.1/1.1.1",
];

/// What is read of these phexts, before and after the writes.
const READ: [(&str, &str, &str); 4] = [
    ("select?p=small&c=1.1.1/1.1.1/1.1.1", "old", "new"),
    ("select?p=large&c=1.1.1/1.1.1/1.1.2", "", "new"),
    ("select?p=first&c=1.1.1/1.1.1/1.1.1", "", "new"),
    ("select?p=other&c=1.1.1/1.1.1/1.1.1", "old", ""),
];

#[test]
fn what_is_durable_is_read_while_writes_wait_for_the_disk() {
    if !mount::works("a disk that stalls", &["mkfs.ext4", "fsfreeze"]) {
        return;
    }
    let root = Root::empty();
    let image = root.join("image");
    mount::make_image(&image, 64 << 20, &["mkfs.ext4", "-q", "-F"]);
    let disk = Mount::image(&image, &root.join("disk"), "");
    let data_dir = disk.path().join("data");
    fs::create_dir(&data_dir).unwrap();
    fs::write(data_dir.join("never-asked-for.phext"), "cold").unwrap();
    let worker = LoneWorker::start(&data_dir);
    for phext in ["small", "other"] {
        worker.client.get(&format!("/api/v2/update?p={phext}&c=1.1.1/1.1.1/1.1.1&s=old")).ok();
    }
    let text = "x".repeat(LARGE_BYTES);
    worker.client.post("/api/v2/update?p=large&c=1.1.1/1.1.1/1.1.1", text).ok();

    let frozen = disk.freeze();
    let mut writes = STALLED.map(|target| asked(&worker, target));
    wait::until("a thread that waits for the disk", || has_stalled_thread(&worker));
    for (target, before, _) in READ {
        assert_eq!(worker.client.get(&format!("/api/v2/{target}")).ok(), before, "{target}");
    }
    worker.client.get("/health").ok();
    worker.client.get("/api/v2/version").ok();
    worker.client.get("/api/v2/toc?p=small").ok();
    worker.client.get("/api/v2/get?p=large").ok();
    assert_eq!(worker.client.get("/api/v2/get?p=never-asked-for").ok(), "cold");
    let listed = worker.client.get("/api/v2/phexts");
    assert_eq!(listed.json().as_array().unwrap().len(), 4, "{listed}");
    assert!(has_stalled_thread(&worker), "the disk stalled all the while");

    drop(frozen);
    writes.iter_mut().for_each(|write| _ = write.answer().ok());
    for (target, _, after) in READ {
        assert_eq!(worker.client.get(&format!("/api/v2/{target}")).ok(), after, "{target}");
    }
    worker.stop();
}

/// What the disk gives only after a while, and a request that needs it.
const SLOW: [(&str, &str); 4] = [
    ("slow.phext", "select?p=slow&c=1.1.1/1.1.1/1.1.1"),
    ("slow.journal", "toc?p=slow"),
    ("slow.phext", "update?p=slow&c=1.1.1/1.1.1/1.1.1&s=new"),
    (".keys", "update?p=other&c=1.1.1/1.1.1/1.1.1&s=new"),
];

#[test]
fn a_phext_that_is_slow_to_be_read_stops_no_other() {
    if !strace::works("a phext that is slow to be read") {
        return;
    }
    // At once, for a worker does not end before the disk has answered.
    thread::scope(|scope| {
        for (file, target) in SLOW {
            scope.spawn(move || serves_beside(file, target));
        }
    });
}

/// The worker answers everything but this request while the disk does not give it this file.
fn serves_beside(slow_file: &str, target: &str) {
    let root = Root::empty();
    let data_dir = root.join("data");
    fs::create_dir(&data_dir).unwrap();
    leave_phexts(&data_dir);
    let strace = Strace::new(&root.join("strace.log"), &["pread64"])
        .only_paths([data_dir.join(slow_file)])
        .inject_always("pread64", "delay_enter=15000000");
    let worker = LoneWorker::spawn(&mut strace.command(&LoneWorker::command(&data_dir))).unwrap();
    let mut waiting = asked(&worker, target);
    for _ in 0..20 {
        worker.client.get("/health").ok();
        worker.client.get("/api/v2/version").ok();
        assert_eq!(
            worker.client.get("/api/v2/select?p=cold&c=1.1.1/1.1.1/1.1.1").ok(),
            "cold",
            "{slow_file}"
        );
        assert_eq!(worker.client.get("/api/v2/select?p=none&c=1.1.1/1.1.1/1.1.1").ok(), "", "{slow_file}");
    }
    assert!(!waiting.hears_within(Duration::from_millis(1)), "{slow_file} was read at once");
}

/// Two phexts, one of them with a journal, and keys of a phext that is gone.
fn leave_phexts(data_dir: &Path) {
    fs::write(data_dir.join("cold.phext"), "cold").unwrap();
    let mut worker = LoneWorker::start(data_dir);
    for (phext, command) in [("slow", "update"), ("gone", "delete")] {
        let target = format!("/api/v2/{command}?p={phext}&c=1.1.1/1.1.1/1.1.1&s=old");
        worker.client.request("GET", &target, "Idempotency-Key: 1\r\n", None).ok();
    }
    let has_files =
        || ["slow.phext", "slow.journal", ".keys"].iter().all(|file| data_dir.join(file).exists());
    wait::until("the files that are slow", has_files);
    worker.signal(Signal::KILL);
    worker.ended();
}

/// Asks, and does not wait for the answer.
fn asked(worker: &LoneWorker, target: &str) -> Connection {
    let mut connection = worker.client.connect();
    let head = worker.client.head("GET", &format!("/api/v2/{target}"));
    connection.send(format!("{head}\r\n").as_bytes());
    connection
}

/// Whether a thread is in an uninterruptible sleep (proc_pid_stat(5), state `D`), as those that wait for a frozen file
/// system are.
fn has_stalled_thread(worker: &LoneWorker) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", worker.pid())).unwrap();
    let stats = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.into_iter().any(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('D')))
}
