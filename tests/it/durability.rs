//! Acknowledged writes survive: kills at each system call, failing and full disks, power cuts, damaged files, and
//! other programs that write to the same files.

use std::fs;
use std::path::Path;

use sq_tests::answer::Answer;
use sq_tests::ledger::{Edit, Ledger, Write, state_of};
use sq_tests::lone_worker::LoneWorker;
use sq_tests::wait;

mod clock_steps;
mod damage;
mod disk_errors;
mod disk_use;
mod folders;
mod foreign_edits;
mod full_disk;
mod hostile_texts;
mod kill_loop;
mod kill_points;
mod power_cut;
mod read_only_disk;
mod save_budget;
mod stalled_disk;
mod temporary_files;

/// The phext that each test here makes large with [`sq_tests::large_phext`].
const LARGE: &str = "large";

/// The small one is the unnamed phext.
const SMALL: &str = "";

fn append(phext: &str, number: usize, text: &str) -> Write {
    Write::new(phext, number, Edit::Append(text.to_owned()))
}

fn replace(phext: &str, number: usize, text: &str) -> Write {
    Write::new(phext, number, Edit::Replace(text.to_owned()))
}

fn remove(phext: &str, number: usize) -> Write {
    Write::new(phext, number, Edit::Remove)
}

/// The next start after a fault: it serves what it must, accepts writes, and leaves files with the same content.
fn assert_next_start_serves(data_dir: &Path, ledger: &Ledger) {
    let worker = LoneWorker::start(data_dir);
    ledger.judge(&state_of(&worker.client).unwrap());
    for phext in [SMALL, LARGE] {
        ledger.perform(&worker.client, append(phext, 40, "the next start")).unwrap().ok();
    }
    let state = state_of(&worker.client).unwrap();
    ledger.judge(&state);
    assert_files_hold_everything(data_dir, worker);
    let worker = LoneWorker::start(data_dir);
    assert_eq!(state_of(&worker.client).unwrap(), state);
    worker.stop();
}

/// Stops a worker; then each phext's file alone must contain what the worker served before.
fn assert_files_hold_everything(data_dir: &Path, worker: LoneWorker) {
    let listed = worker.client.get("/api/v2/phexts");
    let answered: Vec<(String, Answer)> = (listed.json().as_array().unwrap().iter())
        .map(|listed| listed["phext"].as_str().unwrap().to_owned())
        .map(|phext| (phext.clone(), worker.client.get(&format!("/api/v2/get?p={phext}"))))
        .collect();
    worker.stop();
    for (phext, answer) in answered {
        // A phext without text has no file.
        let file = fs::read_to_string(data_dir.join(format!("{phext}.phext"))).unwrap_or_default();
        assert!(file == answer.ok(), "{phext}.phext is not what was served");
    }
}

/// Prints the next step, for the log of a failed test.
#[expect(clippy::print_stderr, reason = "the test runner shows it only when the test fails")]
fn mention(what: impl std::fmt::Debug) {
    eprintln!("{what:?}");
}

/// Whether the file of a phext contains this text.
fn file_has(data_dir: &Path, phext: &str, text: &str) -> bool {
    let file = fs::read_to_string(data_dir.join(format!("{phext}.phext")));
    file.is_ok_and(|file| file.contains(text))
}

/// Waits until the file of a phext is saved: at once for a small one, within a second for a large one.
fn wait_until_saved(data_dir: &Path, phext: &str, text: &str) {
    wait::until("the phext's file with the last write", || file_has(data_dir, phext, text));
}
