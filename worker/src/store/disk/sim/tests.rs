//! The simulated disk: what it promises to keep, and that it does lose everything else for some seed.

use std::collections::BTreeSet;

use super::*;
use crate::store::disk::is_full;
use crate::store::disk::tests::{journal, look, name, phext, put};

const SEEDS: std::ops::Range<u64> = 0..200;

/// Everything that a file may be after a power cut.
fn after_crashes(disk: &SimDisk, file: &FileName) -> BTreeSet<Option<Vec<u8>>> {
    SEEDS.map(|seed| disk.crash(seed).bytes(file)).collect()
}

fn only(bytes: &[u8]) -> BTreeSet<Option<Vec<u8>>> {
    BTreeSet::from([Some(bytes.to_vec())])
}

/// A file whose bytes and name are durable.
fn durable(disk: &SimDisk, file: &FileName, bytes: &[u8]) -> Box<dyn DiskFile> {
    let made = put(disk, file, bytes);
    made.sync_all().unwrap();
    disk.sync_directory().unwrap();
    made
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, &journal("a"), b"one");
    assert_eq!(after_crashes(&disk, &journal("a")), only(b"one"));
    file.write_all_at(b"two", 3).unwrap();
    file.sync_data().unwrap();
    file.set_bytes(5).unwrap();
    file.sync_data().unwrap();
    assert_eq!(after_crashes(&disk, &journal("a")), only(b"onetw"));
    for seed in SEEDS {
        assert_eq!(disk.crash(seed).crash(seed).bytes(&journal("a")).unwrap(), b"onetw");
    }
}

#[test]
fn what_was_not_synced_may_be_lost_or_stay_or_be_zeros_but_never_after_a_kill() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, &journal("a"), b"one");
    file.write_all_at(b"two", 3).unwrap();
    let expected = [&b"one"[..], b"onetwo", b"one\0\0\0"].map(|bytes| Some(bytes.to_vec()));
    assert_eq!(after_crashes(&disk, &journal("a")), BTreeSet::from(expected.clone()));
    let killed = disk.kill();
    assert_eq!(look(&killed, &journal("a")).unwrap(), b"onetwo");
    assert_eq!(after_crashes(&killed, &journal("a")), BTreeSet::from(expected));
}

#[test]
fn a_later_write_may_survive_where_an_earlier_did_not() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, &journal("a"), b"");
    file.write_all_at(b"one", 0).unwrap();
    file.write_all_at(b"two", 3).unwrap();
    assert!(after_crashes(&disk, &journal("a")).contains(&Some(b"\0\0\0two".to_vec())));
}

#[test]
fn a_write_is_torn_at_sectors_and_nowhere_else() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, &journal("a"), &[b'-'; 1500]);
    file.write_all_at(&[b'x'; 1000], 400).unwrap();
    let outcomes = after_crashes(&disk, &journal("a"));
    for bytes in outcomes.iter().flatten() {
        let changed_at: Vec<usize> = (1..1500).filter(|at| bytes[*at] != bytes[at - 1]).collect();
        assert!(changed_at.iter().all(|at| [400, 512, 1024, 1400].contains(at)), "torn at {changed_at:?}");
    }
    // Each of the three sectors alone, new or old.
    assert_eq!(outcomes.len(), 8);
}

#[test]
fn a_shorter_length_may_be_lost_too() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, &journal("a"), b"12345678");
    file.set_bytes(4).unwrap();
    file.write_all_at(b"x", 4).unwrap();
    let outcomes = after_crashes(&disk, &journal("a"));
    for possible in [&b"12345678"[..], b"1234x678", b"1234", b"1234x", b"1234\0"] {
        assert!(outcomes.contains(&Some(possible.to_vec())), "{possible:?} never happened");
    }
}

#[test]
fn names_are_durable_once_the_directory_is_synced_and_change_in_their_order() {
    let disk = SimDisk::new(1);
    durable(&disk, &phext("a"), b"old");
    put(&disk, &FileName::NewPhext(name("a")), b"new").sync_all().unwrap();
    disk.rename(&FileName::NewPhext(name("a")), &phext("a")).unwrap();
    disk.remove(&journal("none")).unwrap();
    put(&disk, &journal("b"), b"");
    let both: BTreeSet<_> = SEEDS
        .map(|seed| disk.crash(seed))
        .map(|disk| (disk.bytes(&phext("a")).unwrap() == b"new", disk.bytes(&journal("b")).is_some()))
        .collect();
    assert_eq!(both, BTreeSet::from([(false, false), (true, false), (true, true)]));
    disk.sync_directory().unwrap();
    assert_eq!(after_crashes(&disk, &phext("a")), only(b"new"));
}

#[test]
fn a_removed_file_may_come_back_until_the_directory_is_synced() {
    let disk = SimDisk::new(1);
    durable(&disk, &journal("a"), b"one");
    disk.remove(&journal("a")).unwrap();
    assert_eq!(after_crashes(&disk, &journal("a")), BTreeSet::from([None, Some(b"one".to_vec())]));
    disk.sync_directory().unwrap();
    assert_eq!(after_crashes(&disk, &journal("a")), BTreeSet::from([None]));
}

#[test]
fn a_renamed_file_that_was_not_synced_may_be_empty_although_its_name_is_durable() {
    let disk = SimDisk::new(1);
    put(&disk, &FileName::NewPhext(name("a")), b"new");
    disk.rename(&FileName::NewPhext(name("a")), &phext("a")).unwrap();
    disk.sync_directory().unwrap();
    assert!(after_crashes(&disk, &phext("a")).contains(&Some(Vec::new())));
}

#[test]
fn opening_anew_removes_temporaries_and_makes_the_names_durable() {
    let disk = SimDisk::new(1);
    put(&disk, &FileName::NewJournal(name("a")), b"half");
    put(&disk, &phext("a"), b"").sync_all().unwrap();
    let killed = disk.kill();
    assert_eq!(killed.bytes(&FileName::NewJournal(name("a"))), None);
    assert_eq!(after_crashes(&killed, &phext("a")), only(b""));
}

#[test]
fn after_a_failed_sync_a_second_one_lies() {
    let may_be_lost = |seed: &u64| {
        let disk = SimDisk::new(*seed);
        let file = durable(&disk, &journal("a"), b"one");
        file.write_all_at(b"two", 3).unwrap();
        disk.fail(Operation::SyncData, 1, Errno::IO);
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
        file.sync_data().unwrap();
        assert_eq!(look(&disk, &journal("a")).unwrap(), b"onetwo");
        // Written once more, they are as good as any.
        file.write_all_at(b"x", 6).unwrap();
        file.sync_data().unwrap();
        let outcomes = after_crashes(&disk, &journal("a"));
        assert_eq!(outcomes.len(), 1, "the fate of unsynced data was decided twice");
        outcomes != only(b"onetwox")
    };
    let lost = SEEDS.filter(may_be_lost).count();
    assert!(lost > 0 && lost < SEEDS.count(), "{lost} were lost");
}

#[test]
fn after_a_failed_sync_of_the_directory_a_second_one_does_what_it_says() {
    let may_be_lost = |seed: &u64| {
        let disk = SimDisk::new(*seed);
        put(&disk, &phext("a"), b"").sync_all().unwrap();
        disk.fail(Operation::SyncDirectory, 1, Errno::IO);
        disk.sync_directory().unwrap_err();
        assert!(disk.identity(&phext("a")).unwrap().is_some());
        let may_be_lost = after_crashes(&disk, &phext("a")).contains(&None);
        disk.sync_directory().unwrap();
        assert!(!after_crashes(&disk, &phext("a")).contains(&None));
        may_be_lost
    };
    assert!(SEEDS.filter(may_be_lost).count() > 0);
}

#[test]
fn the_nth_operation_fails_and_no_other() {
    let disk = SimDisk::new(1);
    let file = put(&disk, &journal("a"), b"");
    disk.fail(Operation::Write, 2, Errno::IO);
    file.write_all_at(b"one", 0).unwrap();
    assert!(!is_full(&file.write_all_at(b"two", 3).unwrap_err()));
    assert!(b"onetwo".starts_with(&look(&disk, &journal("a")).unwrap()));
    file.write_all_at(b"two", 3).unwrap();
    disk.fail(Operation::Rename, 1, Errno::NOSPC);
    assert!(is_full(&disk.rename(&journal("a"), &journal("b")).unwrap_err()));
    assert_eq!(look(&disk, &journal("a")).unwrap(), b"onetwo");
}

#[test]
fn chance_strikes_now_and_then_and_the_same_for_a_seed() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        disk.fail_one_in(Some(4));
        let failed: Vec<bool> = (0..100).map(|_| disk.create(&phext("a")).is_err()).collect();
        disk.fail_one_in(None);
        assert!((0..100).all(|_| disk.create(&phext("a")).is_ok()));
        failed
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert!(run(1).contains(&true) && run(1).contains(&false));
}

#[test]
fn after_the_last_change_the_process_is_gone() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, &journal("a"), b"one");
    assert_eq!(disk.changes(), 4);
    disk.stop_after(1);
    file.write_all_at(b"two", 3).unwrap();
    look(&disk, &journal("a")).unwrap();
    assert!(is_stopped(&file.write_all_at(b"three", 6).unwrap_err()));
    assert!(is_stopped(&disk.open(&journal("a")).unwrap_err()));
    assert!(is_stopped(&disk.remove(&journal("a")).unwrap_err()));
    let left = disk.kill().bytes(&journal("a")).unwrap();
    assert!(left.starts_with(b"onetwo") && b"onetwothree".starts_with(&left));
    file.sync_data().unwrap_err();
    assert!(after_crashes(&disk, &journal("a")).contains(&Some(b"one".to_vec())));
    let reopened = disk.crash(1);
    assert_eq!(reopened.changes(), 0);
    put(&reopened, &journal("a"), b"again");
}

#[test]
fn a_full_disk_takes_some_of_the_bytes_at_most_until_there_is_room() {
    let disk = SimDisk::new(1);
    let reserve = disk.create(&FileName::Reserve).unwrap();
    disk.set_capacity_bytes(Some(10));
    reserve.allocate(11).unwrap_err();
    reserve.allocate(6).unwrap();
    let file = put(&disk, &journal("a"), b"1234");
    file.write_all_at(b"4321", 0).unwrap();
    assert!(is_full(&file.write_all_at(b"56", 4).unwrap_err()));
    disk.remove(&FileName::Reserve).unwrap();
    assert!(is_full(&file.write_all_at(b"56", 4).unwrap_err()), "an open file keeps its room");
    drop(reserve);
    assert!(is_full(&file.write_all_at(b"5678901", 4).unwrap_err()));
    let left = look(&disk, &journal("a")).unwrap();
    assert!(left.starts_with(b"4321") && b"4321567890".starts_with(&left));
    file.set_bytes(4).unwrap();
    file.write_all_at(b"567890", 4).unwrap();
    assert!(is_full(&put(&disk.kill(), &journal("b"), b"").write_all_at(b"x", 0).unwrap_err()));
}

#[test]
fn every_change_shows_in_the_identity() {
    let disk = SimDisk::new(1);
    let file = put(&disk, &phext("a"), b"old");
    let mut seen = vec![file.identity().unwrap()];
    file.write_all_at(b"new", 0).unwrap();
    seen.push(file.identity().unwrap());
    disk.replace_behind_our_back(&phext("a"), b"own");
    seen.push(disk.identity(&phext("a")).unwrap().unwrap());
    assert_eq!(look(&disk, &phext("a")).unwrap(), b"own");
    assert_eq!(after_crashes(&disk, &phext("a")), only(b"own"));
    for pair in seen.windows(2) {
        assert_ne!((pair[0].changed_s, pair[0].changed_ns), (pair[1].changed_s, pair[1].changed_ns));
    }
    assert_ne!(seen[1].inode, seen[2].inode);
}

#[test]
fn only_a_whole_sync_keeps_the_times() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, &phext("a"), b"old");
    file.write_all_at(b"new", 0).unwrap();
    file.sync_data().unwrap();
    let written = file.identity().unwrap();
    let is_kept = |seed| disk.crash(seed).identity(&phext("a")).unwrap().unwrap() == written;
    assert_eq!(SEEDS.map(is_kept).collect::<BTreeSet<_>>().len(), 2);
    file.sync_all().unwrap();
    for seed in SEEDS {
        assert!(is_kept(seed), "lost with seed {seed}");
    }
}
