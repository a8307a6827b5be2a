//! Files that cannot be understood: they are refused and left alone, and everything else is served.

use std::fs;
use std::path::Path;

use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::large_phext;
use sq_tests::ledger::{Ledger, Place, Write, state_of};
use sq_tests::lone_worker::LoneWorker;
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::tree;

use super::{LARGE, append, assert_next_start_serves, mention, replace};

/// How many writes stand in a journal that a test damages.
const WRITES: usize = 8;

/// The last of them, which a torn end takes away.
const LAST: usize = 30 + WRITES - 1;

/// Checks that neither a read nor a write of a phext is served, and that the answer says which file it is
/// and what to run.
pub(super) fn assert_refused(client: &Client, phext: &str, role: &str) {
    let place = Place::new(phext, 1);
    let write = replace(phext, 1, "this must not overwrite anything");
    let refused: [Answer; 4] = [
        client.get(&place.target("select")),
        client.get(&format!("/api/v2/get?p={phext}")),
        client.get(&format!("/api/v2/load?p={phext}")),
        write.send(client).unwrap(),
    ];
    for answer in refused {
        let problem = answer.refused(503, "worker_unavailable");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(role) && detail.contains("fsck"), "{answer}");
    }
}

/// A large phext whose last writes are only in its journal, because the worker was killed before it brought
/// the file up to date.
fn killed_with_a_journal() -> (Root, Ledger) {
    let (root, ledger) = (Root::empty(), Ledger::default());
    let data_dir = root.join("data");
    fs::create_dir(&data_dir).unwrap();
    large_phext::write(&data_dir, LARGE, &ledger);
    let worker = LoneWorker::start(&data_dir);
    ledger.perform(&worker.client, replace("small", 1, "of another phext")).unwrap().ok();
    for number in 30..LAST {
        ledger.perform(&worker.client, in_journal(number)).unwrap().ok();
    }
    // The last one is the one that may be lost with a torn end.
    ledger.attempt(in_journal(LAST));
    in_journal(LAST).send(&worker.client).unwrap().ok();
    worker.kill();
    let length = fs::metadata(journal(&data_dir)).map_or(0, |journal| journal.len());
    assert!(length > 4000, "the journal has only {length} bytes: {:?}", tree::files(&data_dir));
    (root, ledger)
}

fn in_journal(number: usize) -> Write {
    append(LARGE, number, &format!("{number} in the journal. ").repeat(40))
}

fn journal(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("large.journal")
}

/// What is done to the bytes of a journal.
type Change = fn(&mut Vec<u8>);

fn change_journal(data_dir: &Path, change: Change) {
    let mut bytes = fs::read(journal(data_dir)).unwrap();
    change(&mut bytes);
    fs::write(journal(data_dir), bytes).unwrap();
}

#[test]
fn a_journal_with_damage_in_its_middle_is_refused() {
    let (root, _) = killed_with_a_journal();
    let data_dir = root.join("data");
    change_journal(&data_dir, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle..middle + 16].iter_mut().for_each(|byte| *byte ^= 0x5a);
    });
    let stored = tree::stored(&data_dir);
    for _ in 0..2 {
        let worker = LoneWorker::start(&data_dir);
        assert_refused(&worker.client, LARGE, "journal");
        assert_eq!(worker.client.get(&Place::new("small", 1).target("select")).ok(), "of another phext");
        append("other", 1, "x").send(&worker.client).unwrap().ok();
        worker.stop();
    }
    let now = tree::stored(&data_dir);
    for (file, bytes) in
        stored.iter().filter(|(file, _)| file.starts_with("large.phext") || file.starts_with("large.journal"))
    {
        assert!(now.get(file) == Some(bytes), "{} has changed", file.display());
    }
}

#[test]
fn a_journal_with_a_torn_end_is_served() {
    let tears: [(&str, Change); 4] = [
        ("cut off", |bytes| bytes.truncate(bytes.len() - 3)),
        ("cut off in the middle of the last record", |bytes| bytes.truncate(bytes.len() - 500)),
        ("zeros behind it", |bytes| bytes.extend([0; 1000])),
        ("noise behind it", |bytes| bytes.extend((0..1000_u32).map(|number| (number * 167 % 251) as u8))),
    ];
    for (tear, change) in tears {
        let (root, ledger) = killed_with_a_journal();
        let data_dir = root.join("data");
        change_journal(&data_dir, change);
        mention(tear);
        assert_next_start_serves(&data_dir, &ledger);
    }
}

#[test]
fn a_journal_without_damage_is_replayed() {
    let (root, ledger) = killed_with_a_journal();
    assert_next_start_serves(&root.join("data"), &ledger);
}

#[test]
fn a_file_that_is_not_utf8_is_refused_at_the_start_and_while_the_worker_runs() {
    let root = Root::empty();
    let data_dir = root.join("data");
    fs::create_dir(&data_dir).unwrap();
    let broken = [b"text, and then \xff\xfe".as_slice(), &vec![b'x'; 2 << 20], b"\xc3"].concat();
    fs::write(data_dir.join("before.phext"), &broken).unwrap();
    let ledger = Ledger::default();
    let worker = LoneWorker::start(&data_dir);
    for phext in ["while", "sound"] {
        ledger.perform(&worker.client, replace(phext, 1, phext)).unwrap().ok();
    }
    assert_refused(&worker.client, "before", ".phext");
    fs::write(data_dir.join("while.phext"), &broken).unwrap();
    assert_refused(&worker.client, "while", ".phext");
    assert_eq!(worker.client.get(&Place::new("sound", 1).target("select")).ok(), "sound");
    worker.client.get("/api/v2/phexts").ok();
    worker.stop();
    for phext in ["before", "while"] {
        assert!(fs::read(data_dir.join(format!("{phext}.phext"))).unwrap() == broken, "{phext} has changed");
    }
    fs::write(data_dir.join("while.phext"), "mended").unwrap();
    fs::remove_file(data_dir.join("before.phext")).unwrap();
    let worker = LoneWorker::start(&data_dir);
    let texts: Vec<String> = state_of(&worker.client).unwrap().into_values().collect();
    assert_eq!(texts, ["sound", "mended"]);
    worker.stop();
}

#[test]
fn a_file_larger_than_the_quota_is_refused() {
    let running = Deployment::start(&Setup { limits: "quota = \"2KiB\"".to_owned(), ..Setup::default() });
    let client = running.client_of("alice");
    replace("sound", 1, "sound").send(&client).unwrap().ok();
    let too_large = "x".repeat(2049);
    running.write("data/alice/heavy.phext", &too_large);
    assert_refused(&client, "heavy", ".phext");
    assert_eq!(client.get(&Place::new("sound", 1).target("select")).ok(), "sound");
    assert_eq!(running.read("data/alice/heavy.phext"), too_large);
    running.write("data/alice/heavy.phext", "light");
    assert_eq!(client.get(&Place::new("heavy", 1).target("select")).ok(), "light");
    running.stop();
}
