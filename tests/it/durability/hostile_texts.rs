//! A client's text that looks like a journal's records costs the next start no more than any other text, and hides
//! neither a torn end nor damage.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use sq_tests::ledger::{Ledger, state_of};
use sq_tests::lone_worker::LoneWorker;
use sq_tests::process::{self, Outcome};
use sq_tests::root::Root;
use sq_tests::{binaries, hostile_text, journal_file};

use super::damage::assert_refused;
use super::{append, assert_next_start_serves, mention, replace};

const TEXT_BYTES: usize = 4 << 20;

/// How much processor time a start may take: one with as many letters takes some hundredths of a second, also where
/// the programs were compiled without optimisation.
const MOST: Duration = Duration::from_secs(5);

/// A directory with a worker's write of this text half in the journal: the process ended in the middle of it.
fn killed_in_the_middle_of(text: &str, prepare: impl FnOnce(&Path)) -> (Root, Ledger) {
    let (root, ledger) = (Root::empty(), Ledger::default());
    let data_dir = root.join("data");
    let worker = LoneWorker::start(&data_dir);
    ledger.perform(&worker.client, replace("small", 1, "before")).unwrap().ok();
    worker.stop();
    prepare(&data_dir);
    let mut worker = LoneWorker::start(&data_dir);
    assert_eq!(state_of(&worker.client).unwrap().into_values().collect::<Vec<_>>(), ["before"]);
    // The kernel writes up to the limit, and ends the process at the next byte.
    let limit = Some(text.len() as u64 / 2);
    let pid = Pid::from_raw(worker.pid().try_into().unwrap()).unwrap();
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: limit, maximum: limit }).unwrap();
    let write = append("small", 2, text);
    ledger.attempt(write.clone());
    write.send(&worker.client).unwrap_err();
    assert_eq!(worker.ended().signal(), Some(Signal::XFSZ.as_raw()));
    (root, ledger)
}

fn journal_of(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("small.journal")
}

fn fsck(data_dir: &Path) -> Outcome {
    process::run(Command::new(binaries::worker()).arg("fsck").arg(data_dir))
}

/// The next start answers soon, `fsck` ends, and everything that was acknowledged is there.
fn assert_soon_served(data_dir: &Path, ledger: &Ledger) {
    let checked = fsck(data_dir);
    assert_eq!(checked.code(), Some(0), "{checked:?}");
    let worker = LoneWorker::start(data_dir);
    ledger.judge(&state_of(&worker.client).unwrap());
    let (own, system) = process::cpu_time(worker.pid()).unwrap();
    assert!(own + system < MOST, "the start took {own:?} and {system:?} of processor time");
    worker.stop();
    assert_next_start_serves(data_dir, ledger);
}

#[test]
fn a_worker_that_ended_in_a_write_of_such_a_text_serves_again_soon() {
    for (what, text) in hostile_text::all(TEXT_BYTES) {
        mention(what);
        let (root, ledger) = killed_in_the_middle_of(&text, |_| {});
        let torn = fs::metadata(journal_of(&root.join("data"))).unwrap().len();
        assert_eq!(torn, TEXT_BYTES as u64 / 2, "the journal does not end in the text");
        assert_soon_served(&root.join("data"), &ledger);
    }
}

#[test]
fn so_does_one_whose_journal_is_of_the_old_format() {
    for (what, text) in hostile_text::all(TEXT_BYTES) {
        mention(what);
        let (root, ledger) = killed_in_the_middle_of(&text, |_| {});
        change_journal(&root.join("data"), |bytes| journal_file::make_old(bytes));
        assert_soon_served(&root.join("data"), &ledger);
        let now = fs::read(journal_of(&root.join("data"))).unwrap();
        assert_eq!(journal_file::format(&now), '2');
    }
}

#[test]
fn nothing_is_written_into_a_journal_of_the_old_format() {
    let (_, text) = hostile_text::all(TEXT_BYTES).swap_remove(0);
    let (root, ledger) = killed_in_the_middle_of(&text, |data_dir| {
        change_journal(data_dir, |bytes| journal_file::make_old(bytes));
    });
    let journal = fs::read(journal_of(&root.join("data"))).unwrap();
    assert_eq!(journal_file::format(&journal), '1');
    assert!(journal.len() < 4096, "{} bytes", journal.len());
    assert_soon_served(&root.join("data"), &ledger);
}

#[test]
fn damage_with_such_a_text_behind_it_is_refused() {
    for is_old in [false, true] {
        for (what, text) in hostile_text::all(100 * 1024) {
            mention((what, is_old));
            let root = Root::empty();
            let data_dir = root.join("data");
            let worker = LoneWorker::start(&data_dir);
            for write in
                [replace("small", 1, "first"), replace("small", 2, &text), append("small", 1, "last")]
            {
                write.send(&worker.client).unwrap().ok();
            }
            worker.stop();
            change_journal(&data_dir, |bytes| {
                if is_old {
                    journal_file::make_old(bytes);
                }
                let first = journal_file::records(bytes)[0].clone();
                assert_eq!(bytes[first.start + journal_file::TEXT_AT..first.end], *b"first");
                bytes[first.end - 1] ^= 0x20;
            });
            assert_eq!(fsck(&data_dir).code(), Some(1));
            let worker = LoneWorker::start(&data_dir);
            assert_refused(&worker.client, "small", "journal");
            worker.stop();
        }
    }
}

fn change_journal(data_dir: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(journal_of(data_dir)).unwrap();
    change(&mut bytes);
    fs::write(journal_of(data_dir), bytes).unwrap();
}
