//! A disk that fails once, at every place where it may.

use super::*;

/// What a store did until its disk failed.
#[derive(Default)]
struct Run {
    /// How many writes were asked for, and how many of them were settled.
    written: usize,
    settled: usize,
    is_in_doubt: bool,
}

const WRITES: usize = 12;

fn text_after(writes: usize) -> String {
    (0..writes).map(|number| format!("{number};")).collect()
}

fn settle(store: &Store, commit_points: &[Vec<CommitPoint>]) -> usize {
    commit_points.iter().take_while(|commit_points| store.are_durable(commit_points)).count()
}

/// Two phexts are written in turn; a write comes in between the jobs of another.
fn run(disk: &SimDisk, tuning: Tuning) -> Run {
    let mut store = on_sim(disk, tuning);
    let mut run = Run::default();
    let mut commit_points = Vec::new();
    for number in 0..WRITES {
        let write = Write { at: at(ORIGIN), edit: append(&format!("{number};")), expected: None, key: None };
        if let Ok(pending) = store.write(&name("notes"), &write) {
            commit_points.push(pending.into_parts().1);
            run.written = number + 1;
        }
        for _ in 0..3 {
            for job in store.next_jobs() {
                store.finish(job.run());
                if !store.is_in_doubt() {
                    run.settled = settle(&store, &commit_points);
                }
            }
        }
        if store.is_in_doubt() {
            break;
        }
    }
    run.is_in_doubt = store.is_in_doubt();
    if run.is_in_doubt {
        assert_eq!(settle(&store, &commit_points), 0, "no answer is given any more");
        check_doubt(&mut store);
    }
    run
}

fn check_doubt(store: &mut Store) {
    assert!(matches!(store.read(&name("notes")), Err(StoreError::InDoubt)));
    assert!(matches!(store.read(&name("never seen")), Err(StoreError::InDoubt)));
    assert!(matches!(store.list(), Err(StoreError::InDoubt)));
    assert!(matches!(put(store, "other", ORIGIN, "x"), Err(StoreError::InDoubt)));
    assert!(store.next_jobs().is_empty() && store.is_idle());
}

#[test]
fn after_a_failed_sync_or_rename_nothing_is_served_and_nothing_acknowledged_is_lost() {
    let mut failures = 0;
    for operation in [Operation::SyncData, Operation::SyncAll, Operation::Rename, Operation::SyncDirectory] {
        for tuning in
            [Tuning { compact_journal_bytes: 200, ..Tuning::DEFAULT }, large(Duration::ZERO), unsaved()]
        {
            for nth in 1.. {
                let disk = SimDisk::new(nth);
                disk.fail(operation, nth, Errno::IO);
                let run = run(&disk, tuning);
                if !run.is_in_doubt {
                    break;
                }
                failures += 1;
                let crashed = (0..8).map(|seed| disk.crash(seed));
                for disk in crashed.chain([disk.kill()]) {
                    let mut store = on_sim(&disk, tuning);
                    let text = scroll(&mut store, "notes", ORIGIN);
                    let is_right = (run.settled..=run.written).any(|writes| text == text_after(writes));
                    assert!(is_right, "{operation:?} {nth}: {} {} {text}", run.settled, run.written);
                    close(store);
                    assert_eq!(saved(&disk, "notes").unwrap_or_default(), text);
                }
            }
        }
    }
    assert!(failures > 30, "{failures}");
}

/// A name that does not give way, be it a folder or a file on which another is mounted, and a directory without room for a
/// name: that stops the write or the save, and not the store.
#[test]
fn what_stops_a_step_that_names_or_removes_a_file_stops_that_step_alone() {
    let mut stopped = 0;
    for error in [Errno::BUSY, Errno::ISDIR, Errno::NOTDIR, Errno::NOTEMPTY, Errno::NOSPC, Errno::DQUOT] {
        for operation in [Operation::Create, Operation::Rename, Operation::Remove] {
            for nth in 1..8 {
                let disk = SimDisk::new(nth);
                disk.fail(operation, nth, error);
                let mut store = on_sim(&disk, Tuning { save_retry_delay: Duration::ZERO, ..Tuning::DEFAULT });
                let mut text = String::new();
                for number in 0..4 {
                    let more = format!("{number};");
                    match write(&mut store, "notes", at(ORIGIN), append(&more)) {
                        Ok(_) => text += &more,
                        Err(StoreError::Io(_) | StoreError::DiskFull { .. }) => stopped += 1,
                        Err(refused) => panic!("{operation:?} {nth} {error}: {refused}"),
                    }
                    if number == 1 && write(&mut store, "notes", at(ORIGIN), Edit::Remove).is_ok() {
                        text.clear();
                    }
                    assert_eq!(scroll(&mut store, "notes", ORIGIN), text, "{operation:?} {nth} {error}");
                }
                // Only one step fails, and it may be the first of these.
                let first = put(&mut store, "other", ORIGIN, "x");
                assert!(
                    matches!(first, Ok(_) | Err(StoreError::Io(_) | StoreError::DiskFull { .. })),
                    "{first:?}"
                );
                put(&mut store, "other", ORIGIN, "y").unwrap();
                close(store);
                assert_eq!(saved(&disk, "notes").unwrap_or_default(), text, "{operation:?} {nth} {error}");
            }
        }
    }
    assert!(stopped > 10, "{stopped}");
}

#[test]
fn a_write_that_the_disk_refuses_is_not_applied_and_later_ones_are() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    put(&mut store, "notes", ORIGIN, "abc").unwrap();
    disk.fail(Operation::Write, 1, Errno::IO);
    assert!(matches!(put(&mut store, "notes", ORIGIN, "x"), Err(StoreError::Io(_))));
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "abc");
    write(&mut store, "notes", at(ORIGIN), append("!")).unwrap();
    assert_eq!(scroll(&mut on_sim(&disk.kill(), Tuning::DEFAULT), "notes", ORIGIN), "abc!");
}

#[test]
fn half_a_record_that_cannot_be_cut_off_is_the_end() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    put(&mut store, "notes", ORIGIN, "abc").unwrap();
    disk.fail(Operation::Write, 1, Errno::NOSPC);
    disk.fail(Operation::SetBytes, 1, Errno::IO);
    assert!(matches!(put(&mut store, "notes", ORIGIN, "x"), Err(StoreError::InDoubt)));
    check_doubt(&mut store);
    assert_eq!(scroll(&mut on_sim(&disk.kill(), Tuning::DEFAULT), "notes", ORIGIN), "abc");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_of_its_own() {
    let disk = SimDisk::new(1);
    disk.replace_behind_our_back(&phext_file("notes"), b"abc");
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    for operation in [Operation::Identity, Operation::Open, Operation::Read] {
        disk.fail(operation, 1, Errno::IO);
        assert!(matches!(store.read(&name("notes")), Err(StoreError::Io(_))), "{operation:?}");
    }
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "abc");
    disk.fail(Operation::List, 1, Errno::IO);
    assert!(matches!(store.list(), Err(StoreError::Io(_))));
    assert_eq!(list(&mut store).len(), 1);
}
