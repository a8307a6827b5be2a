//! The listing: complete, in order, and with little in memory.

use super::*;

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
        let (listed, commit_points) = store.list().unwrap().into_parts();
        assert_eq!(listed, rows);
        assert!(!store.are_durable(&commit_points), "what only a journal has is made durable first");
        assert_eq!(store.cache.names().collect::<Vec<_>>(), [&name("new")]);
    }
    run_jobs(&mut store);
    fs::write(dir.path().join("a.phext"), "one").unwrap();
    fs::remove_file(dir.path().join("bad.phext")).unwrap();
    put(&mut store, "new", "1.1.1/1.1.1/1.1.2", "d").unwrap();
    assert_eq!(list(&mut store), [row("a", 3, Some(1)), row("new", 5, Some(2))]);
}

#[test]
fn a_listing_of_many_pages_is_complete_and_in_order() {
    let disk = SimDisk::new(1);
    let text = |number: usize| format!("n{}", number * 7919 % 1009);
    let count = 1000;
    for number in 0..count {
        disk.replace_behind_our_back(&phext_file(&text(number)), b"one\x17two");
    }
    let mut store = on_sim(&disk, unsaved());
    begin(&mut store, "new", ORIGIN, append("abc"));
    run_jobs(&mut store);
    let mut expected: Vec<String> = (0..count).map(text).collect();
    expected.push("new".to_owned());
    expected.sort();
    // From pages of a single name to one page of all.
    for page_bytes in [100, 1000, 70_000, 1_000_000] {
        let listed = store.list_in_pages(page_bytes).unwrap().into_inner_undurable();
        assert!(listed.iter().map(|row| row.name.as_str()).eq(expected.iter().map(String::as_str)));
        assert!(listed.iter().all(|row| row.scrolls == Some(if row.name.as_str() == "new" { 1 } else { 2 })));
        assert_eq!(store.cache.count(), 1);
    }
}

#[test]
fn phexts_that_are_created_and_removed_during_a_listing_disturb_nothing() {
    let disk = SimDisk::new(1);
    for phext in ["a", "b", "c", "d"] {
        disk.replace_behind_our_back(&phext_file(phext), b"text");
    }
    let mut store = on_sim(&disk, unsaved());
    let mut listing = Listing::default();
    let page = store.list_page(&listing).unwrap().run().unwrap();
    listing.turn(page);
    disk.remove(&phext_file("a")).unwrap();
    let (mut piece, job) = store.list_piece(&mut listing).unwrap();
    disk.replace_behind_our_back(&phext_file("b"), b"more\x17text");
    disk.replace_behind_our_back(&phext_file("c"), b"\xff");
    begin(&mut store, "d", "1.1.1/1.1.1/1.1.2", append("new"));
    run_jobs(&mut store);
    let unsaved = job.run(&mut piece);
    assert_eq!(unsaved, [name("d")], "its journal has more than its file");
    store.list_unsaved(&name("d"), &mut piece).unwrap();
    let rows: Vec<_> = piece.into_rows().into_iter().map(|row| (row.bytes, row.scrolls)).collect();
    assert_eq!(rows, [(9, Some(2)), (1, None), (8, Some(2))]);
    assert!(listing.is_over());
}

#[test]
fn one_that_cannot_be_read_has_no_scrolls_and_the_others_are_listed() {
    let disk = SimDisk::new(1);
    for phext in ["a", "b", "c"] {
        disk.replace_behind_our_back(&phext_file(phext), b"text");
    }
    for operation in [Operation::Identity, Operation::Open, Operation::Read] {
        let mut store = on_sim(&disk, Tuning::DEFAULT);
        disk.fail(operation, 1, Errno::IO);
        let scrolls = |store: &mut Store| list(store).into_iter().map(|row| row.scrolls).collect::<Vec<_>>();
        assert_eq!(scrolls(&mut store), [None, Some(1), Some(1)], "{operation:?}");
        assert_eq!(scrolls(&mut store), [Some(1), Some(1), Some(1)]);
    }
}
