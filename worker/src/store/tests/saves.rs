//! Saves, and the compaction of journals.

use super::*;

fn joined(store: &mut Store, phext: &str) -> String {
    store.read(&name(phext)).unwrap().into_inner_undurable().join()
}

fn is_write(job: &Job) -> bool {
    matches!(job.work(), Some(Work::WriteFile { .. }))
}

#[test]
fn a_large_phext_is_saved_after_the_delay() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, large(Duration::ZERO));
    begin(&mut store, "notes", "2.1.1/1.1.1/1.1.3", append("far"));
    begin(&mut store, "notes", ORIGIN, append("near"));
    run_jobs(&mut store);
    assert_eq!(saved(&disk, "notes").unwrap(), joined(&mut store, "notes"));
    assert!(store.is_idle() && store.next_wakeup().is_none());
}

#[test]
fn a_large_phext_is_saved_on_close() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    put(&mut store, "notes", ORIGIN, "abc").unwrap();
    assert_eq!(saved(&disk, "notes"), None);
    assert!(!store.is_idle());
    close(store);
    assert_eq!(saved(&disk, "notes").unwrap(), "abc");
    let mut store = on_sim(&disk.kill(), unsaved());
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "abc");
    assert!(store.next_jobs().is_empty(), "nothing is left to do after a good end");
}

#[test]
fn a_long_journal_does_not_wait_for_a_pause() {
    let disk = SimDisk::new(1);
    let tuning = Tuning { long_journal_bytes: 4000, compact_journal_bytes: 1000, ..unsaved() };
    let mut store = on_sim(&disk, tuning);
    let mut longest = 0;
    for number in 100..400 {
        put(&mut store, "notes", ORIGIN, &format!("{number}").repeat(130)).unwrap();
        longest = longest.max(disk.bytes(&journal_file("notes")).unwrap().len());
    }
    assert_eq!(saved(&disk, "notes").unwrap().len(), 390);
    assert!(longest < 6000, "{longest}");
}

#[test]
fn a_saved_journal_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let journal = sq_shared::layout::journal_file(dir.path(), &name("notes"));
    let length = || fs::metadata(&journal).unwrap().len();
    let text = "x".repeat(100_000);
    let mut shortest = u64::MAX;
    for number in 0..12 {
        put(&mut store, "notes", ORIGIN, &format!("{number}{text}")).unwrap();
        assert!(length() < 256 * 1024 + 300_000);
        shortest = shortest.min(if number < 3 { u64::MAX } else { length() });
    }
    assert!(shortest < 1000, "{shortest}");
    drop(store);
    let mut store = open(dir.path());
    assert_eq!(scroll(&mut store, "notes", ORIGIN), format!("11{text}"));
}

#[test]
fn a_write_during_a_save_survives_it() {
    for compact_journal_bytes in [0, 1 << 20] {
        let disk = SimDisk::new(1);
        let tuning = Tuning { compact_journal_bytes, ..large(Duration::ZERO) };
        let mut store = on_sim(&disk, tuning);
        let mut text = String::new();
        begin(&mut store, "notes", ORIGIN, append("a"));
        text.push('a');
        // One write before each job of the save, and one before its result is applied.
        let mut commit_points = Vec::new();
        for letter in "bcdefghijklmnop".chars() {
            let jobs = store.next_jobs();
            for job in jobs {
                let done = job.run();
                commit_points.extend(begin(&mut store, "notes", ORIGIN, append(&letter.to_string())));
                text.push(letter);
                store.finish(done);
            }
        }
        assert!(saved(&disk, "notes").is_some(), "a save has ended meanwhile");
        assert_eq!(in_memory(&store, "notes"), text);
        store.next_jobs().into_iter().filter(|job| !is_write(job)).for_each(|job| drop(job.run()));
        let mut next = on_sim(&disk.kill(), tuning);
        assert_eq!(scroll(&mut next, "notes", ORIGIN), text);
        run_jobs(&mut next);
        assert_eq!(saved(&disk.kill(), "notes").map(|saved| text.starts_with(&saved)), Some(true));
        run_jobs(&mut store);
    }
}

/// Keys that the disk refuses during a save must not shift where the journal's records behind the save begin.
#[test]
fn keys_refused_during_a_save_take_no_write_with_them() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning { compact_journal_bytes: 0, ..unsaved() });
    put(&mut store, "notes", ORIGIN, "a").unwrap();
    for number in 0..10_u8 {
        let key = Some(WriteKey::new(KeyOrigin::Client, &number.to_string()));
        let unchanged = Write { at: at(ORIGIN), edit: append(""), expected: None, key };
        let _ = store.write(&name("notes"), &unchanged).unwrap();
    }
    store.cache.open_mut(&name("notes")).unwrap().save_soon(Instant::now());
    let (saves, appends): (Vec<Job>, Vec<Job>) = store.next_jobs().into_iter().partition(is_write);
    assert_eq!((saves.len(), appends.len()), (1, 1));
    disk.fail(Operation::Write, 1, Errno::IO);
    appends.into_iter().for_each(|job| store.finish(job.run()));
    let commit_points = begin(&mut store, "notes", ORIGIN, append("E"));
    saves.into_iter().for_each(|job| store.finish(job.run()));
    // The save ends, and a new journal begins.
    run_jobs(&mut store);
    assert!(store.are_durable(&commit_points));
    assert_eq!(saved(&disk, "notes").unwrap(), "a", "E is in the journal alone");
    assert_eq!(scroll(&mut on_sim(&disk.kill(), unsaved()), "notes", ORIGIN), "aE");
}

#[test]
fn the_next_worker_saves_what_the_last_one_did_not() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    put(&mut store, "notes", ORIGIN, "abc").unwrap();
    let disk = disk.kill();
    let mut store = on_sim(&disk, unsaved());
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "abc");
    run_jobs(&mut store);
    assert_eq!(saved(&disk, "notes").unwrap(), "abc");
}
