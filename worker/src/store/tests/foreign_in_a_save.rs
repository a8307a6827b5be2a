//! Another program writes the file while a save is on its way to it.

use super::foreign::write_behind_our_back;
use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    /// Before the new file is written, after that, and before it is to take the name.
    BeforeWrite,
    AfterWrite,
    BeforePublish,
}

/// Runs jobs until there are none; the other program strikes in a moment of its choice.
fn run_jobs_and_strike(store: &mut Store, moment: Moment, mut strike: impl FnMut()) {
    loop {
        let jobs = store.next_jobs();
        if jobs.is_empty() {
            return;
        }
        for job in jobs {
            let (is_write, is_publish) = (
                matches!(job.work(), Some(Work::WriteFile { .. })),
                matches!(job.work(), Some(Work::Publish { .. })),
            );
            if is_write && moment == Moment::BeforeWrite || is_publish && moment == Moment::BeforePublish {
                strike();
            }
            let done = job.run();
            if is_write && moment == Moment::AfterWrite {
                strike();
            }
            store.finish(done);
        }
    }
}

#[test]
fn a_file_that_is_newer_than_the_save_is_not_overwritten() {
    for moment in [Moment::BeforeWrite, Moment::AfterWrite, Moment::BeforePublish] {
        for is_new in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let path = sq_shared::layout::phext_file(dir.path(), &name("notes"));
            if !is_new {
                fs::write(&path, "first").unwrap();
            }
            let mut store = open(dir.path());
            let commit_points = begin(&mut store, "notes", ORIGIN, append(", ours"));
            let mut strikes = 0;
            run_jobs_and_strike(&mut store, moment, || {
                strikes += 1;
                if strikes == 1 {
                    write_behind_our_back(&path, "theirs");
                }
            });
            assert_eq!(fs::read_to_string(&path).unwrap(), "theirs", "{moment:?}");
            assert!(store.are_durable(&commit_points), "{moment:?}");
            assert!(!store.is_in_doubt() && store.is_idle());
            assert_eq!(scroll(&mut store, "notes", ORIGIN), "theirs");
            // What comes after it must be durable as ever.
            for text in ["1", "2", "3"] {
                write(&mut store, "notes", at(ORIGIN), append(text)).unwrap();
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), "theirs123");
            drop(store);
            let mut store = open(dir.path());
            assert_eq!(scroll(&mut store, "notes", ORIGIN), "theirs123", "{moment:?}");
        }
    }
}

#[test]
fn writes_after_it_are_durable_by_the_journal_alone() {
    for later in [1, 2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let path = sq_shared::layout::phext_file(dir.path(), &name("notes"));
        let mut store = open_at(dir.path(), large(Duration::ZERO));
        begin(&mut store, "notes", ORIGIN, append("ours"));
        run_jobs_and_strike(&mut store, Moment::AfterWrite, || write_behind_our_back(&path, "theirs"));
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "theirs");
        for _ in 0..later {
            let commit_points = begin(&mut store, "notes", ORIGIN, append("!"));
            while !store.are_durable(&commit_points) {
                let jobs = store
                    .next_jobs()
                    .into_iter()
                    .filter(|job| !matches!(job.work(), Some(Work::WriteFile { .. })));
                jobs.collect::<Vec<_>>().into_iter().for_each(|job| store.finish(job.run()));
            }
        }
        drop(store);
        let mut store = open(dir.path());
        assert_eq!(scroll(&mut store, "notes", ORIGIN), format!("theirs{}", "!".repeat(later)));
    }
}

#[test]
fn writes_newer_than_it_are_applied_on_top() {
    // The files of this disk are years older than the writes.
    for moment in [Moment::BeforeWrite, Moment::AfterWrite, Moment::BeforePublish] {
        let disk = SimDisk::new(1);
        let mut store = on_sim(&disk, Tuning::DEFAULT);
        put(&mut store, "notes", ORIGIN, "ours").unwrap();
        let commit_points = begin(&mut store, "notes", ORIGIN, append("!"));
        let mut is_struck = false;
        run_jobs_and_strike(&mut store, moment, || {
            if !std::mem::replace(&mut is_struck, true) {
                disk.replace_behind_our_back(&phext_file("notes"), b"theirs");
            }
        });
        assert!(store.are_durable(&commit_points));
        assert_eq!(saved(&disk, "notes").unwrap(), "theirs!", "{moment:?}");
        for disk in [disk.kill(), disk.crash(1)] {
            let mut store = on_sim(&disk, Tuning::DEFAULT);
            assert_eq!(scroll(&mut store, "notes", ORIGIN), "theirs!");
        }
    }
}

#[test]
fn the_write_that_is_newer_than_the_file_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = sq_shared::layout::phext_file(dir.path(), &name("notes"));
    let mut store = open(dir.path());
    let mut commit_points = begin(&mut store, "notes", ORIGIN, append("older"));
    loop {
        let mut jobs = store.next_jobs();
        let job = jobs.remove(0);
        let is_publish = matches!(job.work(), Some(Work::Publish { .. }));
        if is_publish {
            write_behind_our_back(&path, "theirs");
            let newer = write(&mut store, "notes", at(ORIGIN), append(" newer"));
            assert!(matches!(newer, Err(StoreError::NotYet)), "{newer:?}");
        }
        store.finish(job.run());
        jobs.into_iter().for_each(|job| store.finish(job.run()));
        if is_publish {
            break;
        }
    }
    run_jobs(&mut store);
    commit_points.extend(begin(&mut store, "notes", ORIGIN, append(" newer")));
    run_jobs(&mut store);
    assert!(store.are_durable(&commit_points));
    assert_eq!(fs::read_to_string(&path).unwrap(), "theirs newer");
    drop(store);
    assert_eq!(scroll(&mut open(dir.path()), "notes", ORIGIN), "theirs newer");
}

#[test]
fn a_request_meanwhile_is_asked_to_come_again_and_then_sees_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = sq_shared::layout::phext_file(dir.path(), &name("notes"));
    let mut store = open(dir.path());
    let commit_points = begin(&mut store, "notes", ORIGIN, append("ours"));
    let jobs = store.next_jobs();
    write_behind_our_back(&path, "theirs");
    assert!(matches!(store.read(&name("notes")), Err(StoreError::NotYet)));
    jobs.into_iter().for_each(|job| store.finish(job.run()));
    run_jobs(&mut store);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "theirs");
    assert!(store.are_durable(&commit_points));
}
