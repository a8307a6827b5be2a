//! When a write or a read may be answered: not before it is durable.

use super::*;

fn read_tickets(store: &mut Store, phext: &str) -> Vec<CommitPoint> {
    store.read(&name(phext)).unwrap().into_parts().1
}

/// The number of journal syncs among some jobs.
fn syncs(jobs: &[Job]) -> usize {
    use crate::store::job::Work;
    jobs.iter()
        .filter(|job| matches!(job.work(), Some(Work::Append { .. } | Work::BeginJournal { .. })))
        .count()
}

#[test]
fn a_read_shows_what_is_durable_and_waits_for_no_write() {
    for tuning in [Tuning::DEFAULT, unsaved()] {
        let disk = SimDisk::new(1);
        let mut store = on_sim(&disk, tuning);
        put(&mut store, "notes", ORIGIN, "old").unwrap();
        let commit_points = begin(&mut store, "notes", ORIGIN, append(" new"));
        loop {
            let is_settled = store.are_durable(&commit_points);
            assert!(read_tickets(&mut store, "notes").is_empty());
            assert!(store.list().unwrap().into_parts().1.is_empty());
            assert_eq!(scroll(&mut store, "notes", ORIGIN), if is_settled { "old new" } else { "old" });
            let Some(job) = store.next_jobs().into_iter().next() else { break };
            store.finish(job.run());
        }
        assert!(store.are_durable(&commit_points));
    }
}

#[test]
fn what_an_earlier_worker_left_unsynced_is_read_once_it_is_durable() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    put(&mut store, "notes", ORIGIN, "abc").unwrap();
    let mut store = on_sim(&disk.kill(), unsaved());
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "abc");
    let commit_points = read_tickets(&mut store, "notes");
    assert!(!commit_points.is_empty() && !store.are_durable(&commit_points));
    run_jobs(&mut store);
    assert!(store.are_durable(&commit_points) && read_tickets(&mut store, "notes").is_empty());
}

/// A read that waits for what an earlier worker left does not wait for a write, and is not refused with it.
#[test]
fn a_read_after_a_kill_does_not_wait_for_a_write_and_is_not_refused_with_it() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    put(&mut store, "notes", ORIGIN, "abc").unwrap();
    let disk = disk.kill();
    let mut store = on_sim(&disk, unsaved());
    let write = begin(&mut store, "notes", ORIGIN, append("d"));
    let (text, read) = {
        let (phext, commit_points) = store.read(&name("notes")).unwrap().into_parts();
        (phext.join(), commit_points)
    };
    assert_eq!(text, "abc");
    disk.fail(Operation::Create, 1, Errno::NOSPC);
    run_jobs(&mut store);
    assert!(matches!(store.is_durable(&write), Err(StoreError::DiskFull { .. })));
    assert!(store.are_durable(&read));
}

/// Records of one job are refused together, with those queued behind them.
#[test]
fn what_the_disk_refuses_was_never_there() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    put(&mut store, "notes", ORIGIN, "a").unwrap();
    let key = WriteKey::new(KeyOrigin::Client, "again");
    let edit = append("b");
    let keyed = Write { at: at(ORIGIN), edit, expected: None, key: Some(key) };
    let first = store.write(&name("notes"), &keyed).unwrap().into_parts().1;
    let job = store.next_jobs().remove(0);
    let second = begin(&mut store, "notes", ORIGIN, append("c"));
    disk.fail(Operation::Write, 1, Errno::NOSPC);
    store.finish(job.run());
    for commit_points in [&first, &second] {
        assert!(matches!(
            store.is_durable(commit_points),
            Err(StoreError::DiskFull { used: 4096, quota: None })
        ));
    }
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "a");
    // Its key is free again, and the next write gets a new number.
    let (written, commit_points) = store.write(&name("notes"), &keyed).unwrap().into_parts();
    run_jobs(&mut store);
    assert!(!written.is_replay && store.are_durable(&commit_points) && !store.are_durable(&second));
    assert_eq!(scroll(&mut on_sim(&disk.kill(), unsaved()), "notes", ORIGIN), "ab");
}

/// A stalled disk must not fill the memory.
#[test]
fn writes_wait_while_many_bytes_are_queued() {
    const QUEUED_BYTES: usize = 32 * 1024 * 1024;
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    let mut write = |phext: &str, bytes: usize| {
        let edit = append(&"x".repeat(bytes));
        store.write(&name(phext), &Write { at: at(ORIGIN), edit, expected: None, key: None }).map(drop)
    };
    write("one", QUEUED_BYTES / 2).unwrap();
    // The first record is some bytes longer than its text.
    write("two", QUEUED_BYTES / 2 - 200).unwrap();
    assert!(matches!(write("one", 200), Err(StoreError::NotYet)));
    assert!(matches!(write("three", 200), Err(StoreError::NotYet)));
    run_jobs(&mut store);
    put(&mut store, "one", ORIGIN, &"x".repeat(QUEUED_BYTES + 1)).unwrap();
}

#[test]
fn a_power_cut_at_any_change_loses_nothing_acknowledged() {
    for tuning in [Tuning::DEFAULT, large(Duration::ZERO), unsaved()] {
        let disk = SimDisk::new(1);
        let mut store = on_sim(&disk, tuning);
        put(&mut store, "notes", ORIGIN, "first ").unwrap();
        let commit_points = begin(&mut store, "notes", ORIGIN, append("second"));
        loop {
            let found = disk.crash(disk.changes());
            let mut next = on_sim(&found, tuning);
            let text = scroll(&mut next, "notes", ORIGIN);
            assert!(text == "first second" || text == "first " && !store.are_durable(&commit_points));
            let Some(job) = store.next_jobs().into_iter().next() else { break };
            store.finish(job.run());
        }
        assert!(store.are_durable(&commit_points));
    }
}

#[test]
fn a_small_phext_is_saved_before_its_write_is_acknowledged() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    let commit_points = begin(&mut store, "notes", ORIGIN, append("abc"));
    while !store.are_durable(&commit_points) {
        assert_eq!(saved(&disk, "notes"), None);
        let jobs = store.next_jobs();
        assert!(!jobs.is_empty());
        jobs.into_iter().for_each(|job| store.finish(job.run()));
    }
    assert_eq!(saved(&disk, "notes").unwrap(), "abc");
}

#[test]
fn a_large_phext_is_in_its_journal_and_no_more() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    let commit_points = begin(&mut store, "notes", ORIGIN, append("abc"));
    let jobs = store.next_jobs();
    assert_eq!((jobs.len(), syncs(&jobs)), (1, 1));
    assert!(!store.are_durable(&commit_points));
    jobs.into_iter().for_each(|job| store.finish(job.run()));
    assert!(store.are_durable(&commit_points));
    assert_eq!(saved(&disk, "notes"), None);
    assert!(store.next_jobs().is_empty() && store.next_wakeup().is_some());
}

#[test]
fn writes_that_wait_together_share_a_sync_and_later_ones_do_not() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    put(&mut store, "notes", ORIGIN, "a").unwrap();
    let one = begin(&mut store, "notes", ORIGIN, append("b"));
    let two = begin(&mut store, "notes", ORIGIN, append("c"));
    let mut jobs = store.next_jobs();
    assert_eq!(syncs(&jobs), 1);
    let late = begin(&mut store, "notes", ORIGIN, append("d"));
    assert!(store.next_jobs().is_empty(), "one sync at a time");
    let changes = disk.changes();
    let done = jobs.remove(0).run();
    assert_eq!(disk.changes(), changes + 2, "one write and one sync");
    store.finish(done);
    assert!(store.are_durable(&one) && store.are_durable(&two));
    assert!(!store.are_durable(&late));
    run_jobs(&mut store);
    assert!(store.are_durable(&late));
}

#[test]
fn phexts_do_not_wait_for_each_other() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    let slow = begin(&mut store, "slow", ORIGIN, append("a"));
    let held = store.next_jobs();
    let quick = begin(&mut store, "quick", ORIGIN, append("b"));
    store.next_jobs().into_iter().for_each(|job| store.finish(job.run()));
    assert!(store.are_durable(&quick) && !store.are_durable(&slow));
    held.into_iter().for_each(|job| store.finish(job.run()));
    assert!(store.are_durable(&slow));
}

/// A file system that stops at an error refuses syncs as well as writes. The last write of the earlier worker, which that
/// one refused, is in the page cache, and the next one sees it.
#[test]
fn what_a_failed_file_system_may_have_in_memory_alone_is_read_and_not_confirmed() {
    let disk = SimDisk::new(1);
    let keyed = |text: &str, key: &str| {
        let key = Some(WriteKey::new(KeyOrigin::Client, key));
        Write { at: at(ORIGIN), edit: append(text), expected: None, key }
    };
    let mut store = on_sim(&disk, unsaved());
    let _ = store.write(&name("notes"), &keyed("abc", "1")).unwrap();
    run_jobs(&mut store);
    let _ = store.write(&name("notes"), &keyed("d", "2")).unwrap();
    disk.fail(Operation::SyncData, 1, Errno::ROFS);
    run_jobs(&mut store);
    assert!(store.is_in_doubt());
    for is_failed in [true, false] {
        let disk = disk.kill();
        let mut store = on_sim(&disk, unsaved());
        let read = read_tickets(&mut store, "notes");
        let repeated = store.write(&name("notes"), &keyed("d", "2")).unwrap().into_parts().1;
        // The reserve's, and the new journal's.
        (1..=2).for_each(|nth| disk.fail(Operation::Create, nth, Errno::ROFS));
        disk.fail(Operation::Write, 1, Errno::ROFS);
        if is_failed {
            disk.fail(Operation::SyncData, 1, Errno::ROFS);
        }
        run_jobs(&mut store);
        assert!(store.are_durable(&read));
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "abcd");
        assert_eq!(store.are_durable(&repeated), !is_failed);
        let again = store.write(&name("notes"), &keyed("d", "2"));
        assert_eq!(matches!(again, Err(StoreError::Unwritable)), is_failed, "{again:?}");
        // Once everything is in a new file, it is durable.
        store.close();
        run_jobs(&mut store);
        assert!(store.write(&name("notes"), &keyed("d", "2")).unwrap().into_inner_undurable().is_replay);
    }
}
