//! A store whose files are read by jobs: which requests wait for which reads.

use super::*;
use crate::store::reading::{KEPT_FOR, LARGE_BYTES, SHORT_AT_ONCE, WAITING};

fn store_on(disk: &SimDisk) -> Store {
    on_sim(disk, unsaved()).with_read_jobs()
}

fn is_waited_for(store: &mut Store, phext: &str) -> bool {
    matches!(store.read(&name(phext)), Err(StoreError::NotYet))
}

#[test]
fn what_is_on_disk_alone_is_waited_for_and_nothing_else() {
    let disk = SimDisk::new(1);
    let mut store = store_on(&disk);
    put(&mut store, "known", ORIGIN, "known").unwrap();
    disk.replace_behind_our_back(&phext_file("cold"), b"cold");
    assert!(is_waited_for(&mut store, "cold"));
    let jobs = store.next_jobs();
    assert!(is_waited_for(&mut store, "cold"));
    assert!(store.next_jobs().is_empty(), "it is read once");
    // Phexts in memory and phexts that do not exist can be read meanwhile; and writes are made.
    assert_eq!(scroll(&mut store, "known", ORIGIN), "known");
    assert_eq!(scroll(&mut store, "nothing", ORIGIN), "");
    put(&mut store, "new", ORIGIN, "new").unwrap();
    assert!(!store.is_idle());
    jobs.into_iter().for_each(|job| store.finish(job.run()));
    assert_eq!(scroll(&mut store, "cold", ORIGIN), "cold");
}

#[test]
fn a_write_waits_for_its_phext_and_for_the_keys() {
    let disk = SimDisk::new(1);
    let key = WriteKey::new(KeyOrigin::Client, "1");
    let delete = Write { at: at(ORIGIN), edit: Edit::Remove, expected: None, key: Some(key) };
    let mut store = store_on(&disk);
    put(&mut store, "kept", ORIGIN, "kept").unwrap();
    // Its key goes into `.keys`, for the phext has no text.
    let _ = store.write(&name("gone"), &delete).unwrap();
    run_jobs(&mut store);
    let mut store = store_on(&disk.kill());
    let write = Write { edit: append("!"), key: None, ..delete };
    for wanted in ["the phext", "the keys"] {
        assert!(matches!(store.write(&name("kept"), &write), Err(StoreError::NotYet)), "{wanted}");
        run_jobs(&mut store);
    }
    let _ = store.write(&name("kept"), &write).unwrap();
    assert_eq!(in_memory(&store, "kept"), "kept!");
    let delete = Write { edit: Edit::Remove, key: Some(key), ..write };
    assert!(store.write(&name("gone"), &delete).unwrap().into_inner_undurable().is_replay);
}

#[test]
fn each_request_gets_the_error_of_its_read() {
    let disk = SimDisk::new(1);
    let mut store = store_on(&disk);
    for phext in ["one", "two"] {
        disk.replace_behind_our_back(&phext_file(phext), b"abc");
        assert!(is_waited_for(&mut store, phext));
    }
    (1..=2).for_each(|nth| disk.fail(Operation::Open, nth, Errno::IO));
    run_jobs(&mut store);
    // Two requests wait for each.
    for phext in ["one", "two", "one", "two"] {
        let refused = store.read(&name(phext)).unwrap_err();
        let StoreError::Io(error) = refused else { panic!("{refused}") };
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    }
    // Later ones have it tried again.
    store.reads.as_mut().unwrap().age(KEPT_FOR);
    assert!(is_waited_for(&mut store, "one"));
    run_jobs(&mut store);
    assert_eq!(scroll(&mut store, "one", ORIGIN), "abc");
}

#[test]
fn what_no_request_waits_for_any_more_is_not_read() {
    let disk = SimDisk::new(1);
    let mut store = store_on(&disk);
    for phext in ["left", "waits"] {
        disk.replace_behind_our_back(&phext_file(phext), phext.as_bytes());
        assert!(is_waited_for(&mut store, phext));
    }
    store.reads.as_mut().unwrap().age(KEPT_FOR);
    assert!(is_waited_for(&mut store, "waits"));
    assert_eq!(store.next_jobs().len(), 1);
    // Nor does the end wait for what no job has begun to read.
    let mut store = store_on(&disk);
    for number in 0..SHORT_AT_ONCE + 2 {
        disk.replace_behind_our_back(&phext_file(&number.to_string()), b"text");
        assert!(is_waited_for(&mut store, &number.to_string()));
    }
    let jobs = store.next_jobs();
    store.close();
    assert!(!store.is_idle() && store.next_jobs().is_empty());
    jobs.into_iter().for_each(|job| store.finish(job.run()));
    run_jobs(&mut store);
    assert!(store.is_idle());
}

#[test]
fn so_many_reads_wait_and_requests_for_more_ask_again() {
    let disk = SimDisk::new(1);
    let mut store = store_on(&disk);
    for number in 0..=WAITING {
        disk.replace_behind_our_back(&phext_file(&number.to_string()), b"text");
        assert!(is_waited_for(&mut store, &number.to_string()));
        let waiting = store.reads.as_ref().unwrap().waiting();
        assert_eq!(waiting, (number + 1).min(WAITING));
    }
    let jobs = store.next_jobs();
    jobs.into_iter().for_each(|job| store.finish(job.run()));
    assert!(is_waited_for(&mut store, &WAITING.to_string()));
    run_jobs(&mut store);
    assert_eq!(scroll(&mut store, &WAITING.to_string(), ORIGIN), "text");
}

/// A disk that is slow to read phexts does not delay the keys, without which there are no writes.
#[test]
fn the_keys_do_not_wait_for_phexts_that_are_slow_to_be_read() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    put(&mut store, "warm", ORIGIN, "text").unwrap();
    let key = Some(WriteKey::new(KeyOrigin::Client, "1"));
    let delete = Write { at: at(ORIGIN), edit: Edit::Remove, expected: None, key };
    let _ = store.write(&name("gone"), &delete).unwrap();
    close(store);
    let disk = disk.kill();
    let mut store = store_on(&disk);
    assert!(is_waited_for(&mut store, "warm"));
    run_jobs(&mut store);
    for number in 0..=SHORT_AT_ONCE {
        disk.replace_behind_our_back(&phext_file(&number.to_string()), b"text");
        assert!(is_waited_for(&mut store, &number.to_string()));
    }
    assert_eq!(store.next_jobs().len(), SHORT_AT_ONCE);
    let write = Write { edit: append("!"), key: None, ..delete };
    assert!(matches!(store.write(&name("warm"), &write), Err(StoreError::NotYet)));
    let keys = store.next_jobs();
    assert_eq!(keys.len(), 1);
    keys.into_iter().for_each(|job| store.finish(job.run()));
    let _ = store.write(&name("warm"), &write).unwrap();
}

#[test]
fn damage_is_reported_once_it_has_been_read() {
    let disk = SimDisk::new(1);
    disk.replace_behind_our_back(&phext_file("notes"), b"\xff");
    let mut store = store_on(&disk);
    assert!(is_waited_for(&mut store, "notes"));
    run_jobs(&mut store);
    assert!(matches!(store.read(&name("notes")), Err(StoreError::Damaged(_))));
    assert!(store.next_jobs().is_empty());
    disk.replace_behind_our_back(&phext_file("notes"), b"mended");
    assert!(is_waited_for(&mut store, "notes"));
    run_jobs(&mut store);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "mended");
}

#[test]
fn so_many_short_phexts_are_read_at_once_and_one_large_one() {
    let disk = SimDisk::new(1);
    let mut store = store_on(&disk);
    let large = usize::try_from(LARGE_BYTES).unwrap();
    for (phext, bytes) in [("large", large + 1), ("larger", large + 2)] {
        disk.replace_behind_our_back(&phext_file(phext), &vec![b'x'; bytes]);
        assert!(is_waited_for(&mut store, phext));
    }
    for number in 0..=SHORT_AT_ONCE {
        // The longest that is short still.
        disk.replace_behind_our_back(&phext_file(&number.to_string()), &vec![b'x'; large]);
        assert!(is_waited_for(&mut store, &number.to_string()));
    }
    let jobs = store.next_jobs();
    assert_eq!(jobs.len(), 1 + SHORT_AT_ONCE);
    jobs.into_iter().for_each(|job| store.finish(job.run()));
    assert_eq!(store.next_jobs().len(), 2);
}

/// While its files are read, no second one is made beside what is read.
#[test]
fn a_phext_that_is_taken_away_while_it_is_read_is_written_to_afterwards() {
    let disk = SimDisk::new(1);
    disk.replace_behind_our_back(&phext_file("notes"), b"old");
    let mut store = store_on(&disk);
    assert!(is_waited_for(&mut store, "notes"));
    let jobs = store.next_jobs();
    disk.remove(&phext_file("notes")).unwrap();
    let write = Write { at: at(ORIGIN), edit: append("new"), expected: None, key: None };
    assert!(matches!(store.write(&name("notes"), &write), Err(StoreError::NotYet)));
    jobs.into_iter().for_each(|job| store.finish(job.run()));
    let (_, commit_points) = store.write(&name("notes"), &write).unwrap().into_parts();
    run_jobs(&mut store);
    assert!(store.are_durable(&commit_points));
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "new");
    close(store);
    assert_eq!(saved(&disk, "notes").unwrap(), "new");
}

#[test]
fn requests_that_wait_do_not_evict_each_others_phexts() {
    let disk = SimDisk::new(1);
    let mut store = store_on(&disk);
    store.set_limits(Limits { memory_bytes: 1500, ..NO_LIMITS });
    let phexts = ["one", "two", "three"];
    for phext in phexts {
        disk.replace_behind_our_back(&phext_file(phext), &[b'x'; 1000]);
        assert!(is_waited_for(&mut store, phext));
    }
    store.next_jobs().into_iter().for_each(|job| store.finish(job.run()));
    // Others are read first, and need the memory.
    disk.replace_behind_our_back(&phext_file("other"), &[b'x'; 1000]);
    assert!(is_waited_for(&mut store, "other"));
    assert_eq!(phexts.map(|phext| is_waited_for(&mut store, phext)), [false; 3]);
    // Once they have been used they may be evicted, and so may those that no request has come back for.
    assert!(is_waited_for(&mut store, "other"));
    run_jobs(&mut store);
    store.reads.as_mut().unwrap().age(KEPT_FOR);
    assert!(is_waited_for(&mut store, "two"));
    run_jobs(&mut store);
    assert_eq!(in_memory(&store, "other"), "");
}
