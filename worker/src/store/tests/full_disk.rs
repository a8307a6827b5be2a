//! A disk that is full: writes are refused, nothing is lost, and what frees room goes through.

use super::*;

const RESERVE_BYTES: u64 = 256 * 1024;

/// The room that a disk must have for the reserve and so much more.
fn room(bytes: u64) -> Option<u64> {
    Some(RESERVE_BYTES + bytes)
}

/// A store without delays on a disk with some room.
fn on_full(disk: &SimDisk) -> Store {
    on_sim(disk, Tuning { save_delay: Duration::ZERO, save_retry_delay: Duration::ZERO, ..Tuning::DEFAULT })
}

fn has_reserve(disk: &SimDisk) -> bool {
    disk.bytes(&FileName::Reserve).is_some_and(|bytes| bytes.len() as u64 == RESERVE_BYTES)
}

/// Runs the jobs that are due now, once.
fn run_once(store: &mut Store) {
    store.next_jobs().into_iter().for_each(|job| store.finish(job.run()));
}

#[test]
fn a_write_without_space_is_refused_and_not_applied() {
    let disk = SimDisk::new(1);
    let mut store = on_full(&disk);
    put(&mut store, "notes", ORIGIN, "abc").unwrap();
    // Enough for a little more and what a write leaves free.
    disk.set_capacity_bytes(room(70_000));
    for _ in 0..3 {
        let refused = put(&mut store, "notes", ORIGIN, &"x".repeat(5000));
        assert!(matches!(refused, Err(StoreError::DiskFull { used: 4096, quota: None })));
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "abc");
        assert!(has_reserve(&disk), "it is not for writes that take room");
    }
    run_jobs(&mut store);
    write(&mut store, "notes", at(ORIGIN), append("!")).unwrap();
    for disk in [disk.kill(), disk.crash(1)] {
        assert_eq!(scroll(&mut on_full(&disk), "notes", ORIGIN), "abc!");
    }
}

#[test]
fn a_delete_succeeds_and_frees_the_space() {
    let disk = SimDisk::new(1);
    let mut store = on_full(&disk);
    put(&mut store, "large", ORIGIN, &"x".repeat(2000)).unwrap();
    put(&mut store, "small", ORIGIN, "abc").unwrap();
    disk.set_capacity_bytes(Some(0));
    assert!(matches!(put(&mut store, "small", ORIGIN, "abcd"), Err(StoreError::DiskFull { .. })));
    assert_eq!(scroll(&mut store, "large", ORIGIN).len(), 2000);
    assert!(has_reserve(&disk));
    let used = 2000
        + 3
        + [journal_file("large"), journal_file("small")]
            .map(|journal| disk.bytes(&journal).unwrap().len() as u64)
            .iter()
            .sum::<u64>();
    disk.set_capacity_bytes(room(used));
    assert_eq!(write(&mut store, "large", at(ORIGIN), Edit::Remove).unwrap(), 2000);
    assert_eq!(saved(&disk, "large"), None);
    // With the text gone there is room for a little more, and the reserve is taken again when it fits.
    disk.set_capacity_bytes(None);
    put(&mut store, "small", ORIGIN, "abcd").unwrap();
    assert!(has_reserve(&disk));
}

#[test]
fn a_save_without_space_leaves_the_write_in_the_journal_and_is_retried() {
    let disk = SimDisk::new(1);
    let mut store = on_full(&disk);
    let text = "x".repeat(300_000);
    put(&mut store, "notes", ORIGIN, &text).unwrap();
    let used = 300_000 + disk.bytes(&journal_file("notes")).unwrap().len() as u64;
    // The write finds room; then others take it.
    let commit_points = begin(&mut store, "notes", ORIGIN, append("!"));
    disk.set_capacity_bytes(room(used + 1000));
    (0..8).for_each(|_| run_once(&mut store));
    assert!(store.are_durable(&commit_points) && !store.is_in_doubt());
    assert!(store.cache.open(&name("notes")).unwrap().has_save_failed());
    assert_eq!(saved(&disk, "notes").unwrap(), text, "the old file stays");
    assert_eq!(disk.bytes(&FileName::NewPhext(name("notes"))), None);
    assert_eq!(scroll(&mut store, "notes", ORIGIN).len(), 300_001);
    for disk in [disk.kill(), disk.crash(1)] {
        assert_eq!(scroll(&mut on_full(&disk), "notes", ORIGIN).len(), 300_001);
    }
    disk.set_capacity_bytes(None);
    run_jobs(&mut store);
    assert_eq!(saved(&disk, "notes").unwrap().len(), 300_001);
    assert!(!store.cache.open(&name("notes")).unwrap().has_save_failed());
    assert!(has_reserve(&disk), "the reserve comes back");
}

#[test]
fn a_worker_that_ends_on_a_full_disk_loses_nothing() {
    let disk = SimDisk::new(1);
    // When it ends it does not try again and again.
    let tuning = Tuning { save_retry_delay: Duration::from_secs(3600), ..Tuning::DEFAULT };
    let mut store = on_sim(&disk, tuning);
    put(&mut store, "notes", ORIGIN, &"x".repeat(300_000)).unwrap();
    let used = 300_000 + disk.bytes(&journal_file("notes")).unwrap().len() as u64;
    // The write finds room; then others take it.
    let commit_points = begin(&mut store, "notes", ORIGIN, append("!"));
    disk.set_capacity_bytes(room(used + 1000));
    (0..8).for_each(|_| run_once(&mut store));
    assert!(store.are_durable(&commit_points));
    close(store);
    let disk = disk.kill();
    let mut store = on_full(&disk);
    assert_eq!(scroll(&mut store, "notes", ORIGIN).len(), 300_001);
    (0..8).for_each(|_| run_once(&mut store));
    disk.set_capacity_bytes(None);
    run_jobs(&mut store);
    assert_eq!(saved(&disk, "notes").unwrap().len(), 300_001);
}

#[test]
fn a_new_journal_without_space_for_its_first_write_blocks_nothing() {
    let disk = SimDisk::new(1);
    disk.replace_behind_our_back(&phext_file("notes"), b"abc");
    let mut store = on_full(&disk);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "abc");
    // There is room for the new file and the journal's header, and none for the records.
    disk.fail(Operation::Write, 3, Errno::NOSPC);
    assert!(matches!(put(&mut store, "notes", ORIGIN, "abcd"), Err(StoreError::DiskFull { .. })));
    run_jobs(&mut store);
    disk.replace_behind_our_back(&phext_file("notes"), b"theirs");
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "theirs");
    run_jobs(&mut store);
    assert!(store.is_idle());
    disk.set_capacity_bytes(None);
    put(&mut store, "notes", ORIGIN, "small").unwrap();
    assert_eq!(saved(&disk, "notes").unwrap(), "small");
}

/// No room at each single operation in turn: a write is refused, or settled in the end, or the store is in
/// doubt; whatever it is, nothing that was settled is lost.
#[test]
fn a_full_disk_at_any_single_operation_loses_nothing() {
    let takes_room = [
        Operation::Create,
        Operation::Rename,
        Operation::SyncDirectory,
        Operation::Write,
        Operation::Allocate,
        Operation::SyncData,
        Operation::SyncAll,
    ];
    for operation in takes_room {
        for nth in 1..12 {
            let disk = SimDisk::new(nth);
            disk.fail(operation, nth, Errno::NOSPC);
            let mut store = on_full(&disk);
            let (mut text, mut possible) = (String::new(), Vec::new());
            for number in 0..6 {
                let more = format!("{number};");
                match write(&mut store, "notes", at(ORIGIN), append(&more)) {
                    Ok(_) => text += &more,
                    Err(StoreError::DiskFull { .. }) => {
                        assert_eq!(scroll(&mut store, "notes", ORIGIN), text, "{operation:?} {nth}");
                    }
                    Err(StoreError::InDoubt) => {
                        let syncs = [Operation::SyncDirectory, Operation::SyncData, Operation::SyncAll];
                        assert!(syncs.contains(&operation), "{operation:?} {nth}");
                        possible.push(text.clone() + &more);
                        break;
                    }
                    Err(error) => panic!("{operation:?} {nth}: {error}"),
                }
            }
            possible.push(text);
            for disk in [disk.kill(), disk.crash(nth), disk.crash(nth + 100)] {
                let found = scroll(&mut on_full(&disk), "notes", ORIGIN);
                assert!(possible.contains(&found), "{operation:?} {nth}: {found} {possible:?}");
            }
        }
    }
}
