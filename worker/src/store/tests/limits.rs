//! Memory, quota, and the listing.

use super::*;

fn memory(memory_bytes: u64) -> Limits {
    Limits { quota_bytes: None, memory_bytes }
}

fn quota(quota_bytes: u64) -> Limits {
    Limits { quota_bytes: Some(quota_bytes), ..NO_LIMITS }
}

fn recounted(store: &Store) -> u64 {
    store.cache.names().filter_map(|name| Some(store.cache.open(name)?.memory_bytes())).sum()
}

fn exceeds(result: Result<u64, StoreError>) -> bool {
    matches!(result, Err(StoreError::QuotaExceeded { .. }))
}

#[test]
fn what_is_held_stays_in_the_budget() {
    const BUDGET: u64 = 100_000;
    for pace in [Pace::DEFAULT, unsaved()] {
        let disk = SimDisk::new(1);
        let mut store = on_sim(&disk, pace);
        store.set_limits(memory(BUDGET));
        let text = |number: usize| format!("{number} ").repeat(3000);
        for number in 0..40 {
            // Whoever needs memory that only unsaved phexts take waits for a save.
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
fn what_is_not_saved_never_leaves_memory_and_others_wait_for_it() {
    let disk = SimDisk::new(1);
    disk.replace_behind_our_back(&phext_file("other"), &[b'y'; 5000]);
    let mut store = on_sim(&disk, unsaved());
    let tickets = begin(&mut store, "notes", ORIGIN, append(&"x".repeat(5000)));
    store.set_limits(memory(8000));
    for _ in 0..3 {
        assert!(matches!(store.read(&name("other")), Err(StoreError::NotYet)));
        assert!(store.cache.open(&name("notes")).is_some());
    }
    assert_eq!(in_memory(&store, "notes").len(), 5000);
    run_jobs(&mut store);
    assert!(store.has_settled(&tickets));
    assert_eq!(saved(&disk, "notes").unwrap().len(), 5000);
    assert_eq!(scroll(&mut store, "other", ORIGIN).len(), 5000);
    assert!(store.cache.open(&name("notes")).is_none());
    assert!(store.has_settled(&tickets));
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

#[test]
fn a_listing_keeps_in_memory_only_what_must_be_saved_and_counts_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.phext"), "one\x17two").unwrap();
    fs::write(dir.path().join("bad.phext"), b"\xff").unwrap();
    put(&mut open_at(dir.path(), unsaved()), "new", ORIGIN, "abc").unwrap();
    assert!(!dir.path().join("new.phext").exists());
    let mut store = open_at(dir.path(), unsaved());
    let row = |text, bytes, scrolls| Listed { name: name(text), bytes, scrolls };
    for _ in 0..2 {
        let rows = [row("a", 7, Some(2)), row("bad", 1, None), row("new", 3, Some(1))];
        let (listed, tickets) = store.list().unwrap().into_parts();
        assert_eq!(listed, rows);
        assert!(!store.has_settled(&tickets), "what only a journal has is made durable first");
        assert_eq!(store.cache.names().collect::<Vec<_>>(), [&name("new")]);
    }
    run_jobs(&mut store);
    fs::write(dir.path().join("a.phext"), "one").unwrap();
    fs::remove_file(dir.path().join("bad.phext")).unwrap();
    put(&mut store, "new", "1.1.1/1.1.1/1.1.2", "d").unwrap();
    assert_eq!(list(&mut store), [row("a", 3, Some(1)), row("new", 5, Some(2))]);
}
