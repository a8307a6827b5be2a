//! Other programs that write to a phext's file while the worker runs: what they wrote is taken, and no
//! write of the worker's overwrites it unseen.

use std::fs;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sq_tests::client::Connection;
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

/// How many edits the two tests below make. Each is longer than the one before: the length is what shows an edit
/// within one step of the clock for files.
const EDITS: usize = 300;

/// Asks for the first scroll of the small phext on one connection: a new one would wake the worker's main task.
struct Reader {
    connection: Connection,
    request: String,
}

impl Reader {
    fn of(worker: &LoneWorker) -> Self {
        let request = worker.client.head("GET", &Place::new("small", 1).target("select")) + "\r\n";
        Self { connection: worker.client.connect(), request }
    }

    fn ask(&mut self) -> String {
        self.connection.send(self.request.as_bytes());
        self.connection.answer().ok().to_owned()
    }
}

/// A worker shares a look at a file among reads, but not across a rest.
#[test]
fn who_edits_a_file_and_then_asks_a_worker_at_rest_gets_the_edit() {
    let (root, worker) = served();
    let (theirs, file) = (root.join("data/theirs"), root.join("data/small.phext"));
    let mut reader = Reader::of(&worker);
    for edit in 1..=EDITS {
        let text = "theirs ".repeat(edit);
        fs::write(&theirs, &text).unwrap();
        // It looks, and soon afterwards, before a look is too old, there is another file.
        reader.ask();
        fs::rename(&theirs, &file).unwrap();
        assert!(reader.ask() == text, "edit {edit} is missing");
    }
}

/// A worker that always has more to do shares a look for no longer than `docs/store.md` promises.
#[test]
fn a_busy_worker_shows_an_edit_that_is_a_tenth_of_a_millisecond_old() {
    const LATEST: Duration = Duration::from_micros(100);
    let (root, worker) = served();
    let mut reader = Reader::of(&worker);
    // Sent without a pause, whether or not the earlier ones are answered: the worker never rests.
    let requests = reader.request.repeat(64);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let stream = TcpStream::connect(worker.client.address).unwrap();
        let mut answers = stream.try_clone().unwrap();
        scope.spawn(|| send_until(&is_over, stream, requests.as_bytes()));
        scope.spawn(move || io::copy(&mut answers, &mut io::sink()));
        let _at_the_end = Raise(&is_over);
        for edit in 1..=EDITS {
            let text = "theirs ".repeat(edit);
            change(How::Rename, &root.join("data"), "small", &text);
            let edited = Instant::now();
            while edited.elapsed() <= LATEST {}
            assert!(reader.ask() == text, "edit {edit} is missing");
        }
    });
}

fn send_until(is_over: &AtomicBool, mut stream: TcpStream, bytes: &[u8]) {
    while !is_over.load(Ordering::Relaxed) {
        stream.write_all(bytes).unwrap();
    }
    stream.shutdown(Shutdown::Both).unwrap();
}

/// Says that it is over, also when a test fails, so that no thread of it goes on.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn cases() -> impl Iterator<Item = (&'static str, How)> {
    ["small", LARGE].into_iter().flat_map(|phext| [How::Rename, How::InPlace].map(|how| (phext, how)))
}
