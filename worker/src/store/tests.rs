//! The store against a plain map, on real files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use sq_shared::phext_name::Folder;

use super::eviction::OPEN_PHEXTS;
use super::*;
use crate::store::disk::FileName;
use crate::store::disk::sim::{Operation, SimDisk};
use crate::store::job::{Job, Task, Work};
use proptest::prelude::*;

mod durability;
mod eviction;
mod expected;
mod failing_disk;
mod foreign;
mod foreign_in_a_save;
mod full_disk;
mod idempotency;
mod journal_space;
mod kill_points;
mod limits;
mod links;
mod listing;
mod reading;
mod recovery;
mod retirement;
mod saves;
mod seeds;
mod torn;

const NO_LIMITS: Limits =
    Limits { quota_bytes: None, phexts: None, coordinate: None, memory_bytes: u64::MAX };

fn open(dir: &Path) -> Store {
    scanned(Store::open(DataDirectory::open(dir).unwrap(), NO_LIMITS).unwrap())
}

/// A store that has scanned its directory: the first write need not wait for that.
fn scanned(mut store: Store) -> Store {
    assert!(matches!(store.usage.keep_current(Instant::now()), Err(StoreError::NotYet)));
    assert!(run_scan(&mut store));
    store
}

/// Compares the directory with the account if the store wants that, and gives whether it did.
fn run_scan(store: &mut Store) -> bool {
    let scan = store.next_scan();
    scan.map(|scan| store.finish_scan(scan.run())).is_some()
}

/// Of a phext in the directory, or in a folder.
fn name(text: &str) -> PhextName {
    let (folder, own) = text.rsplit_once('/').unwrap_or(("", text));
    let own = PhextName::parse(own).unwrap();
    if folder.is_empty() { own } else { own.in_folder(Folder { path: folder.into(), inode: 0 }).unwrap() }
}

fn at(text: &str) -> Coordinate {
    Coordinate::parse(text, None).unwrap()
}

/// A store on files that a test writes, with its own tuning.
fn open_at(dir: &Path, tuning: Tuning) -> Store {
    let disk = OsDisk::lock(DataDirectory::open(dir).unwrap()).unwrap();
    scanned(Store::on(Arc::new(disk), NO_LIMITS, tuning))
}

fn on_sim(disk: &SimDisk, tuning: Tuning) -> Store {
    scanned(Store::on(Arc::new(disk.clone()), NO_LIMITS, tuning))
}

/// Every phext that is not empty is a large one: it is saved this long after a write.
fn large(save_delay: Duration) -> Tuning {
    Tuning { save_before_answer_bytes: 0, save_delay, ..Tuning::DEFAULT }
}

/// No phext is saved before the store is closed.
fn unsaved() -> Tuning {
    large(Duration::from_secs(3600))
}

fn phext_file(phext: &str) -> FileName {
    FileName::Phext(name(phext))
}

fn journal_file(phext: &str) -> FileName {
    FileName::Journal(name(phext))
}

/// What a phext's file holds.
fn saved(disk: &SimDisk, phext: &str) -> Option<String> {
    disk.bytes(&phext_file(phext)).map(|bytes| String::from_utf8(bytes).unwrap())
}

/// Writes, and leaves the jobs to the test.
fn begin(store: &mut Store, phext: &str, place: &str, edit: Edit) -> Vec<CommitPoint> {
    let write = Write { at: at(place), edit, expected: None, key: None };
    store.write(&name(phext), &write).unwrap().into_parts().1
}

fn append(text: &str) -> Edit {
    Edit::Append(text.to_owned())
}

fn close(mut store: Store) {
    store.close();
    run_jobs(&mut store);
    assert!(store.is_idle());
}

impl Store {
    /// The first sync of this one's disk fails.
    pub(crate) fn on_a_failing_disk() -> Self {
        let disk = SimDisk::new(1);
        disk.fail(Operation::SyncAll, 1, Errno::IO);
        Self::on(Arc::new(disk), NO_LIMITS, Tuning::DEFAULT)
    }

    fn are_durable(&self, commit_points: &[CommitPoint]) -> bool {
        matches!(self.is_durable(commit_points), Ok(true))
    }
}

impl Job {
    /// What it does with the files of one phext.
    fn work(&self) -> Option<&Work> {
        match &self.task {
            Task::Phext(_, work) => Some(work),
            Task::Retire(_) | Task::Read(_) => None,
        }
    }
}

/// Runs jobs in order until there are none.
fn run_jobs(store: &mut Store) {
    loop {
        run_scan(store);
        let jobs = store.next_jobs();
        if jobs.is_empty() {
            return;
        }
        jobs.into_iter().for_each(|job| store.finish(job.run()));
    }
}

/// Writes, and waits until the write is durable.
fn write(store: &mut Store, phext: &str, place: Coordinate, edit: Edit) -> Result<u64, StoreError> {
    let write = Write { at: place, edit, expected: None, key: None };
    let (written, commit_points) = loop {
        match store.write(&name(phext), &write) {
            Err(StoreError::NotYet) if run_scan(store) => {}
            result => break result?.into_parts(),
        }
    };
    run_jobs(store);
    assert!(store.is_durable(&commit_points)?);
    Ok(written.bytes)
}

fn put(store: &mut Store, phext: &str, place: &str, text: &str) -> Result<u64, StoreError> {
    write(store, phext, at(place), Edit::Replace(text.to_owned()))
}

fn scroll(store: &mut Store, phext: &str, place: &str) -> String {
    store.read(&name(phext)).unwrap().into_parts().0.scroll(&at(place)).to_owned()
}

/// What a phext is with all its writes, durable or not.
fn in_memory(store: &Store, phext: &str) -> String {
    store.cache.open(&name(phext)).map_or_else(String::new, |open| open.phext().join())
}

fn list(store: &mut Store) -> Vec<Listed> {
    store.list().unwrap().into_parts().0
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
                    let bytes = match &edit {
                        Edit::Remove => before as u64,
                        edit => edit.text().len() as u64,
                    };
                    prop_assert_eq!(write(&mut store, phext.as_str(), place, edit).unwrap(), bytes);
                }
                Step::Reopen => {
                    drop(store);
                    store = open(dir.path());
                }
                Step::Shrink(memory_bytes) => store.set_limits(Limits { memory_bytes, ..NO_LIMITS }),
            }
            for ((phext, place), text) in &model {
                let (phext, _) = store.read(&name(&format!("p{phext}"))).unwrap().into_parts();
                prop_assert_eq!(phext.scroll(place), text);
            }
        }
        let kept: usize = list(&mut store).iter().map(|listed| listed.scrolls.unwrap()).sum();
        prop_assert_eq!(kept, model.values().filter(|text| !text.is_empty()).count());
    }
}

#[test]
fn a_read_makes_no_file_and_the_last_delete_leaves_none() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("new/alice");
    let mut store = open(&dir);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(store.read(&name("notes")).unwrap().into_parts().0.scroll_count(), 0);
    assert_eq!(write(&mut store, "notes", at(ORIGIN), Edit::Remove).unwrap(), 0);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    put(&mut store, "notes", ORIGIN, "AliceData").unwrap();
    assert_eq!(fs::read(dir.join("notes.phext")).unwrap(), b"AliceData");
    assert_eq!(write(&mut store, "notes", at(ORIGIN), Edit::Remove).unwrap(), 9);
    let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".reserve"]);
}

#[test]
fn the_file_is_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes.phext");
    let mut store = open(dir.path());
    put(&mut store, "notes", ORIGIN, "ours").unwrap();
    fs::write(&file, "theirs, longer\x17second").unwrap();
    assert_eq!(scroll(&mut store, "notes", "1.1.1/1.1.1/1.1.2"), "second");
    write(&mut store, "notes", at(ORIGIN), Edit::Append("!".into())).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "theirs, longer!\x17second");
    fs::remove_file(&file).unwrap();
    assert_eq!(store.read(&name("notes")).unwrap().into_parts().0.scroll_count(), 0);
}

#[test]
fn a_second_store_is_refused_and_leftovers_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.phext.tmp"), "half").unwrap();
    fs::write(dir.path().join("mine.tmp"), "not ours").unwrap();
    let store = open(dir.path());
    assert!(!dir.path().join("notes.phext.tmp").exists());
    assert!(dir.path().join("mine.tmp").exists());
    let refusal = Store::open(DataDirectory::open(dir.path()).unwrap(), NO_LIMITS).unwrap_err();
    assert!(matches!(refusal, OpenError::InUse(_)));
    assert!(refusal.to_string().contains(dir.path().to_str().unwrap()));
    drop(store);
    open(dir.path());
}

#[test]
fn so_many_phexts_are_open_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..=OPEN_PHEXTS {
        fs::write(dir.path().join(format!("n{number}.phext")), "text").unwrap();
    }
    let mut store = open(dir.path());
    for number in 0..=OPEN_PHEXTS {
        let _ = store.read(&name(&format!("n{number}"))).unwrap();
        assert_eq!(store.cache.count(), (number + 1).min(OPEN_PHEXTS));
    }
}

#[test]
fn damage_is_refused_and_not_overwritten() {
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
    assert_eq!(list(&mut store).iter().filter(|listed| listed.scrolls.is_none()).count(), 3);
    fs::write(&file, "mended").unwrap();
    assert_eq!(scroll(&mut store, "bad", ORIGIN), "mended");
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
    write(&mut store, "a", at(ORIGIN), Edit::Remove).unwrap();
    assert_eq!(scroll(&mut store, "b", ORIGIN), "1234");
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
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "theirs, the sam");
}
