//! `sq-worker fsck`: what it says of a directory, and that it leaves every byte as it is.

mod tenants;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sq_tests::ledger::{Edit, Ledger, Write};
use sq_tests::lone_worker::LoneWorker;
use sq_tests::process::{self, Outcome};
use sq_tests::root::Root;
use sq_tests::{binaries, large_phext, tree, wait};

/// How many writes are in the large phext's journal alone.
const UNSAVED: usize = 8;

/// How often a worker is killed until one had not saved its last write yet: it waits 300 ms.
const ATTEMPTS: usize = 10;

/// Verifies a directory; none of its bytes may change by that. A worker that has just answered may still note in a journal
/// what it has saved.
fn fsck(dir: &Path) -> Outcome {
    wait::until_some("a run of fsck that changes nothing", || {
        let before = bytes_in(dir);
        let outcome = process::run(Command::new(binaries::worker()).arg("fsck").arg(dir));
        (bytes_in(dir) == before).then_some(outcome)
    })
}

fn bytes_in(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    tree::files(dir).into_iter().map(|file| (file.clone(), fs::read(dir.join(file)).unwrap())).collect()
}

/// The line about a file; its state must stand where those of the others stand.
fn line_of(outcome: &Outcome, file: &str) -> String {
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let (_, rows) = lines.split_last().unwrap();
    let state_column = |line: &str| line.find("  ok ").or(line.find("  DAMAGED "));
    let columns: Vec<_> = rows.iter().map(|line| state_column(line)).collect();
    assert!(columns.iter().all(|column| column.is_some() && *column == columns[0]), "{outcome:?}");
    let is_about = |line: &&&str| line.split_whitespace().next() == Some(file);
    (*rows.iter().find(is_about).unwrap_or_else(|| panic!("no line about {file}: {outcome:?}"))).to_owned()
}

fn assert_says(outcome: &Outcome, file: &str, words: &[&str]) {
    let line = line_of(outcome, file);
    for word in words {
        assert!(line.contains(word), "{word:?} is missing in {line:?}");
    }
}

fn totals(outcome: &Outcome) -> &str {
    outcome.stdout.lines().last().unwrap()
}

fn append(phext: &str, number: usize, text: &str) -> Write {
    Write::new(phext, number, Edit::Append(text.to_owned()))
}

/// A directory with a small phext, a large one with writes that are only in its journal, and a new large one
/// that has no file yet.
fn killed_with_unsaved_writes() -> (Root, PathBuf) {
    for _ in 0..ATTEMPTS {
        let root = Root::empty();
        let dir = root.join("data");
        fs::create_dir(&dir).unwrap();
        large_phext::write(&dir, "large", &Ledger::default());
        let before = fs::read(dir.join("large.phext")).unwrap();
        let worker = LoneWorker::start(&dir);
        append("small", 1, "saved at once").send(&worker.client).unwrap().ok();
        append("new", 1, &"large at once ".repeat(100_000)).send(&worker.client).unwrap().ok();
        for number in 1..=UNSAVED {
            append("large", number, &"in the journal ".repeat(40)).send(&worker.client).unwrap().ok();
        }
        worker.kill();
        let is_saved = fs::read(dir.join("large.phext")).unwrap() != before || dir.join("new.phext").exists();
        if !is_saved {
            fs::remove_file(dir.join("new.phext.tmp")).ok();
            return (root, dir);
        }
    }
    panic!("the worker always had saved before it was killed");
}

/// Changes the bytes of a file.
fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes);
    fs::write(file, bytes).unwrap();
}

/// The byte at which a line says that there is damage.
fn damaged_byte(line: &str) -> usize {
    let number = line.split("at byte ").nth(1).unwrap_or_else(|| panic!("no byte: {line}"));
    number.split(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn a_good_directory_is_described() {
    let root = Root::empty();
    let dir = root.join("data");
    let worker = LoneWorker::start(&dir);
    for number in 1..=3 {
        append("notes", number, "text").send(&worker.client).unwrap().ok();
    }
    append("gone", 1, "text").send(&worker.client).unwrap().ok();
    let while_served = fsck(&dir);
    assert_eq!(while_served.code(), Some(0), "{while_served:?}");
    assert!(while_served.stderr.contains("worker has"), "{while_served:?}");
    append("notes", 4, "text").send(&worker.client).unwrap().ok();
    worker.stop();
    fs::write(dir.join("theirs.phext"), "one\x17two").unwrap();
    fs::write(dir.join("notes.phext.tmp"), "half of").unwrap();
    fs::remove_file(dir.join("gone.phext")).unwrap();
    let outcome = fsck(&dir);
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let bytes = fs::metadata(dir.join("notes.phext")).unwrap().len().to_string();
    assert_says(&outcome, "notes.phext", &["ok", &bytes, "4 scrolls"]);
    assert!(!line_of(&outcome, "notes.phext").contains("another program"), "{outcome:?}");
    assert_says(&outcome, "notes.journal", &["ok", " records"]);
    assert_says(&outcome, "theirs.phext", &["ok", "2 scrolls", "another program"]);
    assert_says(&outcome, "gone.journal", &["ok", "another program removed the phext's file"]);
    assert_says(&outcome, "notes.phext.tmp", &["ok", "the next one removes it"]);
    assert_says(&outcome, ".reserve", &["ok", "262144", "full disk"]);
    let expected = "2 phexts with 6 scrolls, 2 journals with 0 writes not in the files yet, 0 damaged";
    assert_eq!(totals(&outcome), expected);
}

#[test]
fn what_is_only_in_a_journal_is_counted_and_a_torn_end_is_no_damage() {
    let (_root, dir) = killed_with_unsaved_writes();
    let outcome = fsck(&dir);
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
    assert_says(&outcome, "large.journal", &["ok", "8 records, 8 writes not in the file yet"]);
    assert_says(&outcome, "new.journal", &["ok", "1 record, 1 write not in the file yet"]);
    let expected = "2 phexts with 20 scrolls, 3 journals with 9 writes not in the files yet, 0 damaged";
    assert_eq!(totals(&outcome), expected);

    let journal = dir.join("large.journal");
    let whole = fs::read(&journal).unwrap();
    change(&journal, |bytes| bytes.truncate(whole.len() - 3));
    let outcome = fsck(&dir);
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
    // A record: 58 bytes that all have, 36 of the coordinate, 600 of text.
    let torn = "7 writes not in the file yet, 691 bytes at the end";
    assert_says(&outcome, "large.journal", &["ok", torn]);
    // What fsck counted is what the next worker serves.
    fs::write(&journal, &whole).unwrap();
    LoneWorker::start(&dir).stop();
    fsck(&dir).success();
}

#[test]
fn damage_in_a_journal_is_named_with_its_place() {
    let (_root, dir) = killed_with_unsaved_writes();
    let journal = dir.join("large.journal");
    let middle = fs::read(&journal).unwrap().len() / 2;
    change(&journal, |bytes| bytes[middle] ^= 1);
    let outcome = fsck(&dir);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("1 file damaged"), "{outcome:?}");
    let line = line_of(&outcome, "large.journal");
    assert_says(&outcome, "large.journal", &["DAMAGED", "backup", "move the journal out"]);
    let record = damaged_byte(&line);
    assert!(record <= middle && middle < record + 694, "{record} and {middle}: {line}");
    assert_says(&outcome, "large.phext", &["ok", "19 scrolls", "its journal does not show"]);
    assert_says(&outcome, "small.phext", &["ok", "1 scroll"]);
    assert!(totals(&outcome).ends_with(", 1 damaged"), "{outcome:?}");

    // What it says to do helps.
    fs::rename(&journal, dir.join("large.journal.bad")).unwrap();
    assert_eq!(fsck(&dir).code(), Some(0));

    change(&dir.join("small.journal"), |bytes| bytes.truncate(20));
    let outcome = fsck(&dir);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert_says(&outcome, "small.journal", &["DAMAGED", "header", "at byte 0"]);
}

#[test]
fn damage_in_a_phext_is_named_with_its_place() {
    let root = Root::empty();
    let dir = root.join("data");
    fs::create_dir_all(dir.join("folder.phext")).unwrap();
    fs::write(dir.join("good.phext"), "good").unwrap();
    fs::write(dir.join("binary.phext"), b"abc\xff\xfedef").unwrap();
    fs::write(dir.join("cut.phext"), b"abcd\xc3").unwrap();
    fs::write(dir.join("far.phext"), "\x17".repeat(99_999) + "x").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", dir.join("out.phext")).unwrap();
    let outcome = fsck(&dir);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert_says(&outcome, "good.phext", &["ok", "1 scroll"]);
    assert_says(&outcome, "binary.phext", &["DAMAGED", "not UTF-8 from byte 3 on", "repair it"]);
    assert_says(&outcome, "cut.phext", &["DAMAGED", "not UTF-8 from byte 4 on"]);
    assert_says(&outcome, "folder.phext", &["DAMAGED", "not a plain file"]);
    assert_says(&outcome, "far.phext", &["ok", "1 scroll"]);
    assert_says(&outcome, "out.phext", &["DAMAGED", "leads out of the tenant's directory"]);
    assert!(totals(&outcome).ends_with(", 4 damaged"), "{outcome:?}");
}

#[test]
fn a_directory_without_files_is_good_and_one_that_is_none_is_not() {
    let root = Root::empty();
    let dir = root.join("data");
    fs::create_dir(&dir).unwrap();
    let outcome = fsck(&dir);
    let expected = "0 phexts with 0 scrolls, 0 journals with 0 writes not in the files yet, 0 damaged\n";
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (Some(0), expected), "{outcome:?}");
    root.write("file", "no directory");
    for none in ["missing", "file"] {
        let outcome = fsck(&root.join(none));
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
        assert!(outcome.stderr.contains(none), "{outcome:?}");
    }
    assert!(!root.join("missing").exists());
}
