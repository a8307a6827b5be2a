//! Writes that are made only if the scroll is what it was thought to be.

use super::*;

fn checksum(text: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128(text.as_bytes())
}

fn if_match(store: &mut Store, expected: Expected, edit: Edit) -> Result<u64, StoreError> {
    let write = Write { at: at(ORIGIN), edit, expected: Some(expected), key: None };
    let written = store.write(&name("notes"), &write)?.into_inner_undurable();
    run_jobs(store);
    Ok(written.bytes)
}

#[test]
fn a_write_is_made_if_one_of_the_checksums_fits() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    put(&mut store, "notes", ORIGIN, "one").unwrap();
    let stale = Expected::OneOf(vec![checksum("two"), checksum("")]);
    assert!(matches!(if_match(&mut store, stale, append("!")), Err(StoreError::NotAsExpected)));
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "one");
    let good = Expected::OneOf(vec![checksum("two"), checksum("one")]);
    if_match(&mut store, good.clone(), append("!")).unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "one!");
    assert!(matches!(if_match(&mut store, good, Edit::Remove), Err(StoreError::NotAsExpected)));
    assert!(matches!(
        if_match(&mut store, Expected::OneOf(Vec::new()), append("?")),
        Err(StoreError::NotAsExpected)
    ));
}

#[test]
fn an_empty_scroll_has_the_checksum_of_nothing_and_is_not_something() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for edit in [append("x"), Edit::Remove] {
        assert!(matches!(if_match(&mut store, Expected::Something, edit), Err(StoreError::NotAsExpected)));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    if_match(&mut store, Expected::OneOf(vec![checksum("")]), append("x")).unwrap();
    if_match(&mut store, Expected::Something, append("y")).unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "xy");
}

#[test]
fn a_write_that_is_not_durable_yet_counts() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    begin(&mut store, "notes", ORIGIN, append("one"));
    let expected = Expected::OneOf(vec![checksum("one")]);
    if_match(&mut store, expected, append("!")).unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "one!");
}
