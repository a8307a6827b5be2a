//! Memory, the quota, and the number of phexts.

use super::*;

fn memory(memory_bytes: u64) -> Limits {
    Limits { memory_bytes, ..NO_LIMITS }
}

fn quota(quota_bytes: u64) -> Limits {
    Limits { quota_bytes: Some(quota_bytes), ..NO_LIMITS }
}

fn recounted(store: &Store) -> u64 {
    store.cache.names().filter_map(|name| Some(store.cache.get(name)?.memory_bytes())).sum()
}

fn exceeds(result: Result<u64, StoreError>) -> bool {
    matches!(result, Err(StoreError::QuotaExceeded { .. }))
}

#[test]
fn what_is_held_stays_in_the_budget() {
    const BUDGET: u64 = 100_000;
    for tuning in [Tuning::DEFAULT, unsaved()] {
        let disk = SimDisk::new(1);
        let mut store = on_sim(&disk, tuning);
        store.set_limits(memory(BUDGET));
        let text = |number: usize| format!("{number} ").repeat(3000);
        for number in 0..40 {
            // A write that needs the memory of unsaved phexts waits for a save.
            while let Err(error) = put(&mut store, &format!("p{number}"), ORIGIN, &text(number)) {
                assert!(matches!(error, StoreError::NotYet));
                run_jobs(&mut store);
            }
            run_jobs(&mut store);
            assert_eq!(store.cache.held_bytes(), recounted(&store));
        }
        for number in (0..40).chain((0..40).rev()) {
            assert_eq!(scroll(&mut store, &format!("p{number}"), ORIGIN), text(number));
            assert!(store.cache.held_bytes() <= BUDGET, "{}", store.cache.held_bytes());
            assert_eq!(store.cache.held_bytes(), recounted(&store));
            assert!(store.cache.names().count() > 2);
        }
    }
}

#[test]
fn what_is_not_durable_is_not_evicted_and_what_is_not_saved_is_reloaded() {
    let disk = SimDisk::new(1);
    disk.replace_behind_our_back(&phext_file("other"), &[b'y'; 5000]);
    let mut store = on_sim(&disk, unsaved());
    let commit_points = begin(&mut store, "notes", ORIGIN, append(&"x".repeat(5000)));
    store.set_limits(memory(9000));
    for _ in 0..3 {
        assert!(matches!(store.read(&name("other")), Err(StoreError::NotYet)));
        assert!(store.cache.open(&name("notes")).is_some());
    }
    assert_eq!(in_memory(&store, "notes").len(), 5000);
    run_jobs(&mut store);
    assert!(store.are_durable(&commit_points));
    assert_eq!(scroll(&mut store, "other", ORIGIN).len(), 5000);
    assert!(store.cache.open(&name("notes")).is_none());
    assert!(store.are_durable(&commit_points));
    assert_eq!((saved(&disk, "notes"), store.usage.used_bytes()), (None, 10_000));
    assert_eq!(scroll(&mut store, "notes", ORIGIN).len(), 5000);
    close(store);
    assert_eq!(saved(&disk, "notes").unwrap().len(), 5000);
}

#[test]
fn one_that_is_larger_than_the_budget_is_still_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.set_limits(memory(1000));
    put(&mut store, "notes", ORIGIN, &"x".repeat(50_000)).unwrap();
    write(&mut store, "notes", at(ORIGIN), append("!")).unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN).len(), 50_001);
    put(&mut store, "small", ORIGIN, "x").unwrap();
    assert!(store.cache.open(&name("notes")).is_none());
}

#[test]
fn names_without_files_take_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for number in 0..100 {
        assert_eq!(scroll(&mut store, &format!("p{number}"), ORIGIN), "");
    }
    assert_eq!(store.cache.held_bytes(), 0);
}

#[test]
fn the_quota_counts_phexts_that_are_open_and_those_that_are_not() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("closed.phext"), "1234567890").unwrap();
    let mut store = open(dir.path());
    put(&mut store, "open", ORIGIN, "1234567890").unwrap();
    store.set_limits(quota(25));
    put(&mut store, "new", ORIGIN, "12345").unwrap();
    assert!(exceeds(put(&mut store, "new", ORIGIN, "123456")));
    assert!(exceeds(put(&mut store, "newer", ORIGIN, "1")));
    assert_eq!(scroll(&mut store, "closed", ORIGIN), "1234567890");
    assert!(exceeds(put(&mut store, "closed", ORIGIN, "12345678901")));
    write(&mut store, "closed", at(ORIGIN), Edit::Replace("1".into())).unwrap();
    put(&mut store, "newer", ORIGIN, "123456789").unwrap();
    assert!(exceeds(put(&mut store, "newer", ORIGIN, "1234567890")));
    drop(store);
    let mut store = open(dir.path());
    store.set_limits(quota(25));
    assert!(exceeds(write(&mut store, "newer", at(ORIGIN), append("!"))));
}

#[test]
fn a_far_coordinate_costs_its_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.set_limits(quota(11));
    assert!(exceeds(put(&mut store, "notes", "1.1.1/1.1.1/1.1.12", "x")));
    put(&mut store, "notes", "1.1.1/1.1.1/1.1.11", "x").unwrap();
    assert_eq!(fs::metadata(dir.path().join("notes.phext")).unwrap().len(), 11);
    // A scroll on the way to another takes no more breaks.
    assert!(exceeds(put(&mut store, "notes", "1.1.1/1.1.1/1.1.2", "x")));
    store.set_limits(quota(12));
    put(&mut store, "notes", "1.1.1/1.1.1/1.1.2", "x").unwrap();
}

#[test]
fn what_another_program_adds_and_takes_away_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.set_limits(quota(20));
    put(&mut store, "notes", ORIGIN, "1234567890").unwrap();
    fs::write(dir.path().join("theirs.phext"), "123456789").unwrap();
    assert_eq!(list(&mut store).len(), 2);
    assert_eq!(scroll(&mut store, "theirs", ORIGIN), "123456789");
    put(&mut store, "notes", ORIGIN, "12345678901").unwrap();
    assert!(exceeds(put(&mut store, "notes", ORIGIN, "123456789012")));
    // One looks again before a refusal.
    fs::remove_file(dir.path().join("theirs.phext")).unwrap();
    assert_eq!(scroll(&mut store, "theirs", ORIGIN), "");
    put(&mut store, "notes", ORIGIN, "12345678901234567890").unwrap();
    fs::write(dir.path().join("notes.phext"), "1").unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "1");
    put(&mut store, "other", ORIGIN, "1234567890123456789").unwrap();
    assert!(exceeds(put(&mut store, "other", ORIGIN, "12345678901234567890")));
}

#[test]
fn a_file_larger_than_the_quota_is_served_if_it_is_ours() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    put(&mut store, "ours", ORIGIN, "1234567890").unwrap();
    fs::write(dir.path().join("theirs.phext"), "12345678901").unwrap();
    drop(store);
    let mut store = open(dir.path());
    store.set_limits(quota(5));
    assert_eq!(scroll(&mut store, "ours", ORIGIN), "1234567890");
    let refusal = store.read(&name("theirs")).unwrap_err();
    assert!(matches!(refusal, StoreError::Damaged(Damage::LargerThanQuota { bytes: 11, quota: 5 })));
    let listed: Vec<_> = list(&mut store).into_iter().map(|listed| (listed.bytes, listed.scrolls)).collect();
    assert_eq!(listed, [(10, Some(1)), (11, None)]);
    store.set_limits(quota(11));
    assert_eq!(scroll(&mut store, "theirs", ORIGIN), "12345678901");
}

fn block(texts: usize) -> String {
    "x".repeat(4096 * texts)
}

#[test]
fn a_phext_costs_a_block_and_one_without_text_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.set_limits(quota(3 * 4096));
    put(&mut store, "a", ORIGIN, "1").unwrap();
    put(&mut store, "b", ORIGIN, "1").unwrap();
    put(&mut store, "a", ORIGIN, &block(1)).unwrap();
    assert!(exceeds(put(&mut store, "a", ORIGIN, &(block(2) + "1"))));
    put(&mut store, "a", ORIGIN, &block(2)).unwrap();
    let refused = put(&mut store, "c", ORIGIN, "1");
    assert!(matches!(refused, Err(StoreError::QuotaExceeded { used: 12_288, quota: 12_288 })));
    put(&mut store, "b", ORIGIN, &block(1)).unwrap();
    write(&mut store, "b", at(ORIGIN), Edit::Remove).unwrap();
    put(&mut store, "c", ORIGIN, "1").unwrap();
    // Those that are not in memory cost the same.
    drop(store);
    let mut store = open(dir.path());
    store.set_limits(quota(3 * 4096));
    assert!(exceeds(put(&mut store, "d", ORIGIN, "1")));
    store.set_limits(quota(4 * 4096));
    put(&mut store, "d", ORIGIN, "1").unwrap();
}

fn too_many(result: Result<u64, StoreError>) -> Option<(usize, usize)> {
    match result {
        Err(StoreError::TooManyPhexts { phexts, limit, .. }) => Some((phexts, limit)),
        _ => None,
    }
}

#[test]
fn so_many_phexts_may_be_there_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..3 {
        fs::write(dir.path().join(format!("n{number}.phext")), "text").unwrap();
    }
    let mut store = open(dir.path());
    store.set_limits(Limits { phexts: Some(5), ..NO_LIMITS });
    put(&mut store, "n3", ORIGIN, "text").unwrap();
    // A delete that leaves nothing but its key makes no phext.
    let key = Some(WriteKey::new(KeyOrigin::Client, "k"));
    let delete = Write { at: at(ORIGIN), edit: Edit::Remove, expected: None, key };
    let _ = store.write(&name("none"), &delete).unwrap();
    run_jobs(&mut store);
    put(&mut store, "n4", ORIGIN, "text").unwrap();
    assert_eq!(too_many(put(&mut store, "n5", ORIGIN, "text")), Some((5, 5)));
    // Not even while its key is on its way.
    let _ = store.write(&name("nothing"), &delete).unwrap();
    assert_eq!(too_many(put(&mut store, "nothing", ORIGIN, "text")), Some((5, 5)));
    run_jobs(&mut store);
    for number in 0..5 {
        write(&mut store, &format!("n{number}"), at(ORIGIN), append("more")).unwrap();
    }
    assert_eq!(write(&mut store, "n5", at(ORIGIN), Edit::Remove).unwrap(), 0);
    // The last delete of another makes room.
    assert_eq!(write(&mut store, "n0", at(ORIGIN), Edit::Remove).unwrap(), 8);
    put(&mut store, "n0", ORIGIN, "text").unwrap();
    store.set_limits(Limits { phexts: Some(6), ..NO_LIMITS });
    put(&mut store, "n5", ORIGIN, "text").unwrap();
    assert_eq!(too_many(put(&mut store, "n6", ORIGIN, "text")), Some((6, 6)));
}

#[test]
fn before_a_refusal_the_directory_is_scanned_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("theirs.phext"), "text").unwrap();
    let mut store = open(dir.path());
    store.set_limits(Limits { phexts: Some(1), ..NO_LIMITS });
    fs::remove_file(dir.path().join("theirs.phext")).unwrap();
    // The last look may be too young for another one.
    while let Some(counts) = too_many(put(&mut store, "ours", ORIGIN, "text")) {
        assert_eq!(counts, (1, 1));
    }
    assert_eq!(scroll(&mut store, "ours", ORIGIN), "text");
}

#[test]
fn changes_during_a_scan_count() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["open", "closed", "changed"] {
        fs::write(dir.path().join(file).with_extension("phext"), block(1)).unwrap();
    }
    let mut store = Store::open(DataDirectory::open(dir.path()).unwrap(), NO_LIMITS).unwrap();
    assert_eq!(scroll(&mut store, "open", ORIGIN).len(), 4096);
    let edit = Edit::Append(block(1));
    let grow = Write { at: at(ORIGIN), edit, expected: None, key: None };
    assert!(matches!(store.write(&name("new"), &grow), Err(StoreError::NotYet)));
    let scan = store.next_scan().unwrap();
    assert!(store.next_scan().is_none());
    let scanned = scan.run();
    fs::write(dir.path().join("changed.phext"), block(3)).unwrap();
    assert_eq!(scroll(&mut store, "changed", ORIGIN).len(), 3 * 4096);
    fs::remove_file(dir.path().join("closed.phext")).unwrap();
    assert_eq!(scroll(&mut store, "closed", ORIGIN), "");
    store.set_limits(memory(0));
    store.evict_others(&name("changed"));
    store.finish_scan(scanned);
    assert_eq!((store.usage.phexts(), store.usage.used_bytes()), (Some(2), 4 * 4096));
    store.set_limits(NO_LIMITS);
    let _ = store.write(&name("new"), &grow).unwrap();
    assert_eq!((store.usage.phexts(), store.usage.used_bytes()), (Some(3), 5 * 4096));
    assert_eq!(store.usage.largest_bytes(), 3 * 4096);
}

#[test]
fn a_directory_that_cannot_be_listed_is_an_error_and_is_tried_again() {
    let disk = SimDisk::new(1);
    let mut store = Store::on(Arc::new(disk.clone()), NO_LIMITS, Tuning::DEFAULT);
    disk.fail(Operation::List, 1, Errno::IO);
    assert!(matches!(put(&mut store, "notes", ORIGIN, "abc"), Err(StoreError::Io(_))));
    put(&mut store, "notes", ORIGIN, "abc").unwrap();
}

#[test]
fn a_phext_whose_first_write_was_refused_does_not_count() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    store.set_limits(Limits { phexts: Some(2), ..NO_LIMITS });
    put(&mut store, "a", ORIGIN, "text").unwrap();
    disk.fail(Operation::Create, 1, Errno::NOSPC);
    assert!(matches!(put(&mut store, "x", ORIGIN, "text"), Err(StoreError::DiskFull { .. })));
    assert_eq!((store.usage.phexts(), store.cache.count()), (Some(1), 1));
    put(&mut store, "b", ORIGIN, "text").unwrap();
    assert_eq!(too_many(put(&mut store, "x", ORIGIN, "text")), Some((2, 2)));
}
