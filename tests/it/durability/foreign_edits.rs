//! Other programs that write to a phext's file while the worker runs: what they wrote is taken, and no
//! write of the worker's overwrites it unseen.

use std::fs;
use std::path::Path;

use sq_tests::large_phext;
use sq_tests::ledger::{Ledger, Place};
use sq_tests::lone_worker::LoneWorker;
use sq_tests::root::Root;

use super::{LARGE, append, assert_files_hold_everything, replace, wait_until_saved};

/// How another program changes a file.
#[derive(Debug, Clone, Copy)]
enum How {
    /// An editor: a new file is renamed over it.
    Rename,
    /// A shell: the file is cut off and written again.
    InPlace,
}

fn change(how: How, data_dir: &Path, phext: &str, text: &str) {
    let file = data_dir.join(format!("{phext}.phext"));
    match how {
        How::InPlace => fs::write(file, text).unwrap(),
        How::Rename => {
            let theirs = data_dir.join("theirs");
            fs::write(&theirs, text).unwrap();
            fs::rename(theirs, file).unwrap();
        }
    }
}

/// A directory with a small and a large phext, both as ours has saved them last.
fn served() -> (Root, LoneWorker) {
    let root = Root::empty();
    let data_dir = root.join("data");
    fs::create_dir(&data_dir).unwrap();
    large_phext::write(&data_dir, LARGE, &Ledger::default());
    let worker = LoneWorker::start(&data_dir);
    for phext in ["small", LARGE] {
        replace(phext, 1, "ours at first").send(&worker.client).unwrap().ok();
        wait_until_saved(&data_dir, phext, "ours at first");
    }
    // A file that is there may be of a save that the worker has not quite done with; the next one has none.
    worker.stop();
    let worker = LoneWorker::start(&data_dir);
    for phext in ["small", LARGE] {
        assert_eq!(select(&worker, phext, 1), "ours at first");
    }
    (root, worker)
}

fn select(worker: &LoneWorker, phext: &str, number: usize) -> String {
    worker.client.get(&Place::new(phext, number).target("select")).ok().to_owned()
}

/// Their file, with the text of ours in place of the first scroll.
fn theirs(data_dir: &Path, phext: &str) -> String {
    let file = fs::read_to_string(data_dir.join(format!("{phext}.phext"))).unwrap();
    assert!(file.starts_with("ours at first"), "{phext}");
    file.replacen("ours at first", "theirs", 1)
}

#[test]
fn a_replaced_file_is_taken_by_a_load_and_by_a_read() {
    for (phext, how) in cases() {
        let (root, worker) = served();
        let data_dir = root.join("data");
        change(how, &data_dir, phext, &theirs(&data_dir, phext));
        assert_eq!(select(&worker, phext, 1), "theirs", "{phext}, {how:?}");
        change(how, &data_dir, phext, "theirs again\x17and more");
        let load = worker.client.get(&format!("/api/v2/load?p={phext}"));
        assert_eq!(load.ok(), format!("Loaded {phext}.phext"));
        assert_eq!(select(&worker, phext, 1), "theirs again", "{phext}, {how:?}");
        assert_eq!(select(&worker, phext, 2), "and more", "{phext}, {how:?}");
        assert_files_hold_everything(&data_dir, worker);
        let file = fs::read_to_string(data_dir.join(format!("{phext}.phext"))).unwrap();
        assert_eq!(file, "theirs again\x17and more");
    }
}

#[test]
fn a_write_after_a_replacement_stands_on_the_new_file() {
    for (phext, how) in cases() {
        let (root, worker) = served();
        let data_dir = root.join("data");
        let theirs = theirs(&data_dir, phext);
        change(how, &data_dir, phext, &theirs);
        append(phext, 1, " and ours").send(&worker.client).unwrap().ok();
        assert_eq!(select(&worker, phext, 1), "theirs and ours", "{phext}, {how:?}");
        wait_until_saved(&data_dir, phext, "theirs and ours");
        let file = fs::read_to_string(data_dir.join(format!("{phext}.phext"))).unwrap();
        assert!(file == theirs.replacen("theirs", "theirs and ours", 1), "{phext}, {how:?}");
        assert_files_hold_everything(&data_dir, worker);
    }
}

/// Whoever replaces the file of a large phext right after a write may do so before that write is in the file.
/// What becomes of the write is theirs to decide; what they wrote must stay.
#[test]
fn a_replacement_before_the_save_is_not_overwritten() {
    for is_killed in [false, true] {
        for how in [How::Rename, How::InPlace] {
            let (root, worker) = served();
            let data_dir = root.join("data");
            let theirs = theirs(&data_dir, LARGE);
            append(LARGE, 5, "ours, not yet in the file").send(&worker.client).unwrap().ok();
            change(how, &data_dir, LARGE, &theirs);
            if is_killed {
                worker.kill()
            } else {
                worker.stop()
            }
            let worker = LoneWorker::start(&data_dir);
            assert_eq!(select(&worker, LARGE, 1), "theirs", "killed: {is_killed}, {how:?}");
            append(LARGE, 1, " and ours").send(&worker.client).unwrap().ok();
            assert_files_hold_everything(&data_dir, worker);
            let file = fs::read_to_string(data_dir.join("large.phext")).unwrap();
            assert!(file.starts_with("theirs and ours\x17"), "killed: {is_killed}, {how:?}");
        }
    }
}

#[test]
fn a_file_that_is_taken_away_is_an_empty_phext() {
    for phext in ["small", LARGE] {
        let (root, worker) = served();
        let data_dir = root.join("data");
        fs::remove_file(data_dir.join(format!("{phext}.phext"))).unwrap();
        assert_eq!(select(&worker, phext, 1), "", "{phext}");
        append(phext, 2, "new").send(&worker.client).unwrap().ok();
        assert_files_hold_everything(&data_dir, worker);
        assert_eq!(fs::read_to_string(data_dir.join(format!("{phext}.phext"))).unwrap(), "\x17new");
    }
}

fn cases() -> impl Iterator<Item = (&'static str, How)> {
    ["small", LARGE].into_iter().flat_map(|phext| [How::Rename, How::InPlace].map(|how| (phext, how)))
}
