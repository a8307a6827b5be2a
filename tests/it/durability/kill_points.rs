//! SIGKILL at each system call of a scripted run that changes files or answers, one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::process::Signal;
use sq_tests::large_phext;
use sq_tests::ledger::{Ledger, Write};
use sq_tests::lone_worker::LoneWorker;
use sq_tests::notice::say;
use sq_tests::root::Root;
use sq_tests::strace::{self, Strace};
use sq_tests::wait;

use super::{LARGE, SMALL, append, assert_next_start_serves, file_has, mention, remove, replace};

/// The system calls that can change files, and those that can carry an answer.
const CALLS: [&str; 20] = [
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "pwritev2",
    "sendto",
    "sendmsg",
    "fdatasync",
    "fsync",
    "sync_file_range",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "ftruncate",
    "fallocate",
    "linkat",
    "copy_file_range",
    "io_uring_enter",
];

/// How many runs go on at once: most of a run is waiting.
const RUNS_AT_ONCE: usize = 4;

/// The last write of the script before it waits for the large phext's file.
const LAST_BEFORE_SAVE: &str = "the last one before the file is brought up to date";

/// A call to be killed at: its name, and its number among the calls of this name.
#[derive(Debug, Clone, Copy)]
struct Point {
    call: &'static str,
    number: usize,
}

/// Hands the points out: 1, 2, 3 … of each call, until a run has ended before it came to its point.
struct Points(Vec<PointsOfCall>);

struct PointsOfCall {
    next: Point,
    killed: usize,
    is_done: bool,
}

impl Points {
    fn next(&mut self) -> Option<Point> {
        let of_call = self.0.iter_mut().find(|of_call| !of_call.is_done)?;
        let point = of_call.next;
        of_call.next.number += 1;
        Some(point)
    }

    fn note(&mut self, point: Point, was_killed: bool) {
        let of_call = self.0.iter_mut().find(|of_call| of_call.next.call == point.call).unwrap();
        if was_killed { of_call.killed += 1 } else { of_call.is_done = true }
    }
}

#[test]
fn a_kill_at_any_system_call_loses_nothing_acknowledged() {
    if !strace::works("kill points") {
        return;
    }
    let (was_killed, seen) = run(None);
    assert!(!was_killed, "the run without a fault was killed");
    let points = CALLS.into_iter().filter(|call| seen.contains_key(*call)).map(|call| PointsOfCall {
        next: Point { call, number: 1 },
        killed: 0,
        is_done: false,
    });
    let points = Mutex::new(Points(points.collect()));
    let points_now = || points.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        for _ in 0..RUNS_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(point) = points_now().next() else { return };
                    let (was_killed, _) = run(Some(point));
                    points_now().note(point, was_killed);
                }
            });
        }
    });
    let points = points_now();
    let lines: Vec<String> = (points.0.iter())
        .map(|of| format!("{} {} of {}", of.next.call, of.killed, seen[of.next.call]))
        .collect();
    say(&format!("kill points: {}", lines.join(", ")));
    // At what changes a file, at what carries an answer, and at what gives a file its name.
    for wanted in [&["write", "pwrite64"][..], &["sendto", "writev"], &["rename", "renameat", "renameat2"]] {
        let is_wanted = |of: &PointsOfCall| wanted.contains(&of.next.call) && of.killed > 0;
        assert!(points.0.iter().any(is_wanted), "no kill at {wanted:?}: {lines:?}");
    }
    let syncs = points.0.iter().filter(|of| of.next.call.ends_with("sync"));
    assert!(syncs.map(|of| of.killed).sum::<usize>() > 10, "hardly a kill at a sync: {lines:?}");
}

/// Runs the script, killed at this point. Gives whether it was, and how often it did each call.
fn run(point: Option<Point>) -> (bool, BTreeMap<String, usize>) {
    let root = Root::empty();
    let data_dir = root.join("data");
    fs::create_dir(&data_dir).unwrap();
    let ledger = Ledger::default();
    large_phext::write(&data_dir, LARGE, &ledger);
    let mut strace = Strace::new(&root.join("strace.log"), &CALLS);
    if let Some(Point { call, number }) = point {
        strace = strace.inject(call, "signal=SIGKILL", number);
    }
    let status = match LoneWorker::spawn(&mut strace.command(&LoneWorker::command(&data_dir))) {
        Err(outcome) => outcome.status,
        Ok(mut worker) => {
            // What is not answered tells that the kill has come.
            let _ = script(&mut worker, &ledger, &data_dir);
            worker.signal(Signal::TERM);
            worker.ended()
        }
    };
    let was_killed = status.signal() == Some(Signal::KILL.as_raw());
    assert!(was_killed || status.code() == Some(0), "{point:?}: {status}");
    mention(point);
    assert_next_start_serves(&data_dir, &ledger);
    let mut seen = BTreeMap::new();
    for call in strace.calls_seen() {
        *seen.entry(call).or_default() += 1;
    }
    (was_killed, seen)
}

/// Writes to a small phext, to one that did not exist and to a large one, until an answer is missing.
fn script(worker: &mut LoneWorker, ledger: &Ledger, data_dir: &Path) -> Option<()> {
    let perform = |worker: &LoneWorker, write: Write| {
        ledger.perform(&worker.client, write).ok().map(|answer| _ = answer.ok())
    };
    perform(worker, replace(SMALL, 1, "first"))?;
    perform(worker, append(SMALL, 2, "second\n"))?;
    perform(worker, append(SMALL, 1, ", and more"))?;
    perform(worker, remove(SMALL, 2))?;
    perform(worker, append(LARGE, 3, "large and\n"))?;
    perform(worker, replace("new", 7, "in a phext that was not there"))?;
    perform(worker, append(LARGE, large_phext::FAR, "and farther"))?;
    perform(worker, remove(LARGE, 5))?;
    perform(worker, remove("new", 7))?;
    perform(worker, append(LARGE, 30, LAST_BEFORE_SAVE))?;
    wait::until("the large phext's file, or the kill", || {
        file_has(data_dir, LARGE, LAST_BEFORE_SAVE) || worker.try_ended().is_some()
    });
    perform(worker, replace(LARGE, 30, "left to the stop"))?;
    perform(worker, replace(SMALL, 1, "last"))
}
