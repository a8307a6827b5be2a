//! The store against a plain map, on real files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use rustix::io::Errno;

use super::*;
use crate::store::old_disk::Operation;

const NO_LIMITS: Limits = Limits { quota_bytes: None, memory_bytes: u64::MAX };

fn open(dir: &Path) -> Store {
    Store::open(dir, NO_LIMITS).unwrap()
}

fn name(text: &str) -> PhextName {
    PhextName::parse(text).unwrap()
}

fn at(text: &str) -> Coordinate {
    Coordinate::parse(text, None).unwrap()
}

fn put(store: &mut Store, phext: &str, place: &str, text: &str) -> Result<usize, StoreError> {
    store.write(&name(phext), at(place), Edit::Replace(text.to_owned()))
}

impl Store {
    /// The sync of a directory fails from now on.
    pub(crate) fn fail_syncs(&self) {
        self.disk.faults.0.set(Some((Operation::SyncDirectory, Errno::IO)));
    }
}

const ORIGIN: &str = "1.1.1/1.1.1/1.1.1";

#[derive(Debug, Clone)]
enum Step {
    Write(u8, Coordinate, Edit),
    Reopen,
    Shrink(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = prop::array::uniform9(prop_oneof![5 => Just(1_u32), 1 => 1..4_u32])
        .prop_map(|parts| Coordinate::from_parts(parts).unwrap());
    let edit = prop_oneof![
        "[ab\n\u{e4}]{0,5}".prop_map(Edit::Append),
        "[ab\n\u{e4}]{0,5}".prop_map(Edit::Replace),
        Just(Edit::Remove),
    ];
    let step = prop_oneof![
        8 => (0..3_u8, place, edit).prop_map(|(phext, place, edit)| Step::Write(phext, place, edit)),
        1 => Just(Step::Reopen),
        1 => (0..2000_u64).prop_map(Step::Shrink),
    ];
    prop::collection::vec(step, 1..30)
}

fn model_edit(scroll: &mut String, edit: Edit) -> usize {
    let before = scroll.len();
    match edit {
        Edit::Append(text) => scroll.push_str(&text),
        Edit::Replace(text) => *scroll = text,
        Edit::Remove => scroll.clear(),
    }
    before
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_sequence_equals_a_plain_map(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let mut model: BTreeMap<(u8, Coordinate), String> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Write(phext, place, edit) => {
                    let before = model_edit(model.entry((phext, place)).or_default(), edit.clone());
                    let phext = name(&format!("p{phext}"));
                    prop_assert_eq!(store.write(&phext, place, edit).unwrap(), before);
                }
                Step::Reopen => {
                    drop(store);
                    store = open(dir.path());
                }
                Step::Shrink(memory_bytes) => store.set_limits(Limits { quota_bytes: None, memory_bytes }),
            }
            for ((phext, place), text) in &model {
                prop_assert_eq!(store.read(&name(&format!("p{phext}"))).unwrap().scroll(place), text);
            }
        }
        let kept: usize = store.list().unwrap().iter().map(|listed| listed.scrolls.unwrap()).sum();
        prop_assert_eq!(kept, model.values().filter(|text| !text.is_empty()).count());
    }
}

#[test]
fn a_read_makes_no_file_and_the_last_delete_leaves_an_empty_one() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("new/alice");
    let mut store = open(&dir);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(store.read(&name("notes")).unwrap().scroll_count(), 0);
    assert_eq!(store.write(&name("notes"), at(ORIGIN), Edit::Remove).unwrap(), 0);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    put(&mut store, "notes", ORIGIN, "AliceData").unwrap();
    assert_eq!(fs::read(dir.join("notes.phext")).unwrap(), b"AliceData");
    assert_eq!(store.write(&name("notes"), at(ORIGIN), Edit::Remove).unwrap(), 9);
    assert_eq!(fs::read(dir.join("notes.phext")).unwrap(), b"");
}

#[test]
fn the_file_is_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes.phext");
    let mut store = open(dir.path());
    put(&mut store, "notes", ORIGIN, "ours").unwrap();
    fs::write(&file, "theirs, longer\x17second").unwrap();
    assert_eq!(store.read(&name("notes")).unwrap().scroll(&at("1.1.1/1.1.1/1.1.2")), "second");
    store.write(&name("notes"), at(ORIGIN), Edit::Append("!".into())).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "theirs, longer!\x17second");
    fs::remove_file(&file).unwrap();
    assert_eq!(store.read(&name("notes")).unwrap().scroll_count(), 0);
}

#[test]
fn a_second_store_is_refused_and_leftovers_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.phext.tmp"), "half").unwrap();
    fs::write(dir.path().join("mine.tmp"), "not ours").unwrap();
    let store = open(dir.path());
    assert!(!dir.path().join("notes.phext.tmp").exists());
    assert!(dir.path().join("mine.tmp").exists());
    let refusal = Store::open(dir.path(), NO_LIMITS).unwrap_err();
    assert!(matches!(refusal, OpenError::InUse(_)));
    assert!(refusal.to_string().contains(dir.path().to_str().unwrap()));
    drop(store);
    open(dir.path());
}

#[test]
fn damage_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.phext");
    fs::write(&file, b"ok\xff\xfe").unwrap();
    fs::create_dir(dir.path().join("folder.phext")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link.phext")).unwrap();
    let mut store = open(dir.path());
    for phext in ["bad", "folder", "link"] {
        for _ in 0..2 {
            assert!(matches!(store.read(&name(phext)), Err(StoreError::Damaged(_))), "{phext}");
            assert!(matches!(put(&mut store, phext, ORIGIN, "x"), Err(StoreError::Damaged(_))), "{phext}");
        }
    }
    assert_eq!(fs::read(&file).unwrap(), b"ok\xff\xfe");
    put(&mut store, "good", ORIGIN, "x").unwrap();
    assert_eq!(store.list().unwrap().iter().filter(|listed| listed.scrolls.is_none()).count(), 3);
    fs::write(&file, "mended").unwrap();
    assert_eq!(store.read(&name("bad")).unwrap().scroll(&at(ORIGIN)), "mended");
}

#[test]
fn the_quota_at_its_limit_and_one_past() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.set_limits(Limits { quota_bytes: Some(10), ..NO_LIMITS });
    put(&mut store, "a", ORIGIN, "12345").unwrap();
    put(&mut store, "b", ORIGIN, "12345").unwrap();
    let refused = put(&mut store, "b", "1.1.1/1.1.1/1.1.2", "").and(put(&mut store, "b", ORIGIN, "123456"));
    assert!(matches!(refused, Err(StoreError::QuotaExceeded { used: 10, quota: 10 })));
    assert!(matches!(
        put(&mut store, "c", "99999.1.1/1.1.1/1.1.1", "x"),
        Err(StoreError::QuotaExceeded { .. })
    ));
    store.set_limits(Limits { quota_bytes: Some(3), ..NO_LIMITS });
    put(&mut store, "b", ORIGIN, "1234").unwrap();
    store.write(&name("a"), at(ORIGIN), Edit::Remove).unwrap();
    assert_eq!(store.read(&name("b")).unwrap().scroll(&at(ORIGIN)), "1234");
}

#[test]
fn a_full_disk_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    put(&mut store, "a", ORIGIN, "kept").unwrap();
    for errno in [Errno::NOSPC, Errno::DQUOT] {
        for operation in [Operation::Write, Operation::SyncFile, Operation::Rename] {
            store.disk.faults.0.set(Some((operation, errno)));
            let error = store.write(&name("a"), at(ORIGIN), Edit::Append("lost".into())).unwrap_err();
            assert!(
                matches!(error, StoreError::DiskFull { used: 4, quota: None }),
                "{operation:?}: {error:?}"
            );
            assert!(put(&mut store, "new", ORIGIN, "lost").is_err());
            assert_eq!(store.read(&name("a")).unwrap().scroll(&at(ORIGIN)), "kept");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
            store.disk.faults.0.set(None);
            assert_eq!(put(&mut store, "a", ORIGIN, "kept").unwrap(), 4);
        }
    }
}

#[test]
fn after_a_failed_operation_nothing_is_acknowledged_that_may_not_last() {
    use Operation::{Rename, SyncDirectory, SyncFile, Write};
    for (operation, is_in_doubt, is_renamed) in
        [(Write, false, false), (SyncFile, true, false), (Rename, true, false), (SyncDirectory, true, true)]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        put(&mut store, "a", ORIGIN, "old").unwrap();
        store.disk.faults.0.set(Some((operation, Errno::IO)));
        assert!(matches!(put(&mut store, "a", ORIGIN, "new"), Err(StoreError::Io(_))), "{operation:?}");
        store.disk.faults.0.set(None);
        assert_eq!(store.is_in_doubt(), is_in_doubt, "{operation:?}");
        let on_disk = if is_renamed { "new" } else { "old" };
        assert_eq!(fs::read_to_string(dir.path().join("a.phext")).unwrap(), on_disk);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        // The client tries again; what is on disk already must not be taken for durable.
        let again = put(&mut store, "a", ORIGIN, "new");
        if is_in_doubt {
            assert!(matches!(again, Err(StoreError::InDoubt)), "{operation:?}: {again:?}");
            assert!(matches!(store.read(&name("b")), Err(StoreError::InDoubt)), "{operation:?}");
            assert!(matches!(store.list(), Err(StoreError::InDoubt)), "{operation:?}");
            drop(store);
            store = open(dir.path());
            assert_eq!(put(&mut store, "a", ORIGIN, "new").unwrap(), 3);
        } else {
            assert_eq!(again.unwrap(), 3);
        }
        assert_eq!(store.read(&name("a")).unwrap().scroll(&at(ORIGIN)), "new");
    }
}

#[test]
fn a_change_that_hides_its_time_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes.phext");
    let mut store = open(dir.path());
    put(&mut store, "notes", ORIGIN, "ours, 15 bytes.").unwrap();
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    let changed = |file| {
        let metadata = fs::metadata(file).unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let ours = changed(&file);
    // The kernel's clock for files goes in steps: write until it has gone one further.
    while changed(&file) == ours {
        fs::write(&file, "theirs, the sam").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    }
    assert_eq!(store.read(&name("notes")).unwrap().scroll(&at(ORIGIN)), "theirs, the sam");
}

#[test]
fn the_memory_that_is_held_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for phext in ["a", "b", "c"] {
        put(&mut store, phext, ORIGIN, phext).unwrap();
        put(&mut store, phext, ORIGIN, "longer").unwrap();
    }
    let held = |store: &Store| {
        assert!(store.by_use.iter().all(|(last_use, name)| store.loaded[name].last_use == *last_use));
        assert_eq!(store.by_use.len(), store.loaded.len());
        store.loaded.values().map(Loaded::memory_bytes).sum::<u64>()
    };
    assert_eq!((store.held_bytes, store.loaded.len()), (held(&store), 3));
    store.set_limits(Limits { memory_bytes: store.held_bytes - 1, ..NO_LIMITS });
    store.read(&name("c")).unwrap();
    assert_eq!((store.held_bytes, store.loaded.len()), (held(&store), 2));
    fs::remove_file(dir.path().join("b.phext")).unwrap();
    store.read(&name("b")).unwrap();
    assert_eq!((store.held_bytes, store.loaded.len()), (held(&store), 1));
}
