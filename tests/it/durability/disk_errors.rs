//! A disk that fails: a sync that returns EIO, a write that returns ENOSPC, at each of them in turn.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use sq_tests::large_phext;
use sq_tests::ledger::{Ledger, Write, state_of};
use sq_tests::lone_worker::LoneWorker;
use sq_tests::notice::say;
use sq_tests::root::Root;
use sq_tests::strace::{self, Strace};
use sq_tests::wait;

use super::{
    LARGE, append, assert_files_hold_everything, assert_next_start_serves, file_has, remove, replace,
};

const SYNCS: [&str; 2] = ["fdatasync", "fsync"];
const WRITES: [&str; 4] = ["write", "pwrite64", "writev", "pwritev"];

/// The files of the small phext.
const FILES: [&str; 4] = ["small.phext", "small.phext.tmp", "small.journal", "small.journal.tmp"];

fn writes() -> Vec<Write> {
    vec![
        replace("small", 1, "first"),
        append("small", 2, "second"),
        append(LARGE, 3, "large"),
        remove("small", 2),
        replace(LARGE, 30, "the last one before the save"),
    ]
}

fn prepared() -> (Root, Ledger) {
    let (root, ledger) = (Root::empty(), Ledger::default());
    fs::create_dir(root.join("data")).unwrap();
    large_phext::write(&root.join("data"), LARGE, &ledger);
    (root, ledger)
}

#[test]
fn a_sync_that_fails_acknowledges_nothing_and_ends_the_worker() {
    if !strace::works("EIO on a sync") {
        return;
    }
    let (mut failed, mut refused) = (0, 0);
    for call in SYNCS {
        for number in 1.. {
            let (has_failed, was_refused) = run_with_failing_sync(call, number);
            if !has_failed {
                break;
            }
            failed += 1;
            refused += usize::from(was_refused);
        }
    }
    say(&format!("failing syncs: {failed}, of which {refused} under a write"));
    assert!(refused >= 5, "hardly a write was in flight when a sync failed");
}

/// Whether the sync of this number failed, and whether a write was refused for it.
fn run_with_failing_sync(call: &str, number: usize) -> (bool, bool) {
    let (root, ledger) = prepared();
    let data_dir = root.join("data");
    let strace = Strace::new(&root.join("strace.log"), &SYNCS).inject(call, "error=EIO", number);
    let (status, was_refused) = match LoneWorker::spawn(&mut strace.command(&LoneWorker::command(&data_dir)))
    {
        Err(outcome) => (outcome.status, false),
        Ok(mut worker) => {
            let was_refused = write_until_refused(&mut worker, &ledger, &data_dir);
            if !strace.failed_call().is_some_and(|line| ends_worker(&line)) {
                worker.signal(Signal::TERM);
            }
            (worker.ended(), was_refused)
        }
    };
    let failed = strace.failed_call();
    let counts = failed.as_ref().is_some_and(|line| ends_worker(line));
    assert_eq!(status.code() != Some(0), counts, "{call} {number}: {status}, {failed:?}");
    assert!(status.code().is_some(), "{call} {number}: {status}");
    assert!(counts || !was_refused, "{call} {number}: a write was refused for nothing");
    assert_next_start_serves(&data_dir, &ledger);
    (failed.is_some(), was_refused)
}

/// The reserve is only room: it holds nothing that could be lost.
fn ends_worker(failed_call: &str) -> bool {
    !failed_call.contains("/.reserve")
}

/// Whether one was answered 503. Where the worker ended between two writes, there is no answer.
fn write_until_refused(worker: &mut LoneWorker, ledger: &Ledger, data_dir: &Path) -> bool {
    for write in writes() {
        match ledger.perform(&worker.client, write) {
            Err(_) => return false,
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => {
                answer.refused(503, "worker_unavailable");
                answer.retry_after_s();
                return true;
            }
        }
    }
    wait::until("the large phext's file, or the end of the worker", || {
        file_has(data_dir, LARGE, "the last one before the save") || worker.try_ended().is_some()
    });
    false
}

#[test]
fn a_write_that_finds_no_room_is_refused_and_everything_else_goes_on() {
    if !strace::works("ENOSPC on a write") {
        return;
    }
    let (mut failed, mut refused) = (0, 0);
    for call in WRITES {
        for number in 1.. {
            let (has_failed, was_refused) = run_without_room(call, number);
            if !has_failed {
                break;
            }
            failed += 1;
            refused += usize::from(was_refused);
        }
    }
    say(&format!("writes without room: {failed}, of which {refused} were refused"));
    assert!(refused >= 1, "no write was refused");
}

/// Whether the write of this number failed, and whether a client was told so.
fn run_without_room(call: &str, number: usize) -> (bool, bool) {
    let (root, ledger) = prepared();
    let data_dir = root.join("data");
    let files = FILES.map(|name| data_dir.join(name));
    let strace = Strace::new(&root.join("strace.log"), &WRITES).only_paths(files);
    let strace = strace.inject(call, "error=ENOSPC", number);
    let mut worker = LoneWorker::spawn(&mut strace.command(&LoneWorker::command(&data_dir))).unwrap();
    let mut refused = 0;
    for write in writes() {
        let answer = ledger.perform(&worker.client, write).unwrap();
        if answer.status != 200 {
            let problem = answer.refused(507, "disk_full");
            assert!(problem["used"].is_u64(), "{answer}");
            refused += 1;
            assert!(refused <= strace.failed_calls(), "a write was refused for nothing: {answer}");
            ledger.judge(&state_of(&worker.client).unwrap());
        }
    }
    ledger.perform(&worker.client, remove("small", 1)).unwrap().ok();
    ledger.judge(&state_of(&worker.client).unwrap());
    if strace.failed_call().is_some() {
        assert_files_hold_everything(&data_dir, worker);
    } else {
        // The write that fails may be one of the stop itself: it cannot save then, and the next start must.
        worker.signal(Signal::TERM);
        worker.ended();
    }
    assert_next_start_serves(&data_dir, &ledger);
    (strace.failed_call().is_some(), refused > 0)
}
