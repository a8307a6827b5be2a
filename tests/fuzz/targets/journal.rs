//! A phext's files as some program left them: opened, or refused as damaged with nothing changed; and what was
//! opened once is the same at every further start.
//!
//! An input is a byte of choices, the length of the text (two bytes, little endian), the text, and the journal.
//! The choices mend what no mutation would ever get right: checksums, and the digest of the text.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;
use sq_worker::store::fsck::{self, Finding};
use sq_worker::store::{DataDirectory, Edit, KeyOrigin, Limits, Store, StoreError, Write, WriteKey};
use tempfile::TempDir;

use super::phext::scrolls;
use crate::allocated::assert_proportional;

/// Where the parts of a journal begin, as `docs/store.md` has them.
const BASE_DIGEST: usize = 24;
const HEADER_CRC: usize = 53;
const FIRST_RECORD: usize = 57;

/// The format and the generation, in the header. In the format 2 the generation masks a record's sequence.
const FORMAT: usize = 6;
const GENERATION: std::ops::Range<usize> = 8..16;

/// The base's sequence, in the header; a record's is the first of its body.
const BASE_SEQUENCE: usize = 16;

/// Where a record's body has its kind, of which the first three are edits, and an edit its coordinate.
const KIND: usize = 24;
const PLACE: std::ops::Range<usize> = 50..86;

/// The largest sequence that is taken over from a journal, and how many before it are left out here: with a few writes the
/// store would come upon it, which it calls damage.
const LARGEST_FOUND: u64 = u64::MAX / 2 - (1 << 32);
const LEFT_OUT: u64 = 1 << 20;

const HAS_TEXT: u8 = 1;
const HAS_JOURNAL: u8 = 2;
const MEND_HEADER: u8 = 4;
const MEND_RECORDS: u8 = 8;
const KNOWS_TEXT: u8 = 16;
/// The journal is the one with the keys of all phexts.
const IS_KEYS: u8 = 32;

pub(crate) fn check(data: &[u8]) {
    let Some(([choices, low, high], rest)) = data.split_first_chunk::<3>() else { return };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    let (text, journal) = rest.split_at(length.min(rest.len()));
    let has = |choice| choices & choice != 0;
    let dir = TempDir::with_prefix_in("sq-fuzz-", memory_folder()).unwrap();
    // Text that is damaged says nothing about the keys.
    if has(HAS_TEXT) && !(has(HAS_JOURNAL) && has(IS_KEYS)) {
        fs::write(dir.path().join("notes.phext"), text).unwrap();
    }
    if has(HAS_JOURNAL) {
        let mut journal = journal.to_vec();
        if has(KNOWS_TEXT) {
            name_text(&mut journal, has(HAS_TEXT).then_some(text));
        }
        mend(&mut journal, has(MEND_HEADER), has(MEND_RECORDS));
        if has(IS_KEYS) {
            fs::write(dir.path().join(".keys"), journal).unwrap();
            return check_keys(dir.path(), data.len());
        }
        fs::write(dir.path().join("notes.journal"), journal).unwrap();
    }
    check_directory(dir.path(), data.len());
}

/// A disk in memory: the fuzzer is not to wait for a real one.
pub(crate) fn memory_folder() -> &'static Path {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared } else { Path::new("/tmp") }
}

fn check_directory(dir: &Path, input_bytes: usize) {
    let before = contents(dir);
    let is_damaged = has_damage(dir);
    let mut store = open(dir);
    let found = assert_proportional(input_bytes, || match store.read(&name()) {
        Ok(pending) => Some(scrolls(pending.into_inner_undurable())),
        Err(StoreError::Damaged(_)) => None,
        Err(error) => panic!("{error}"),
    });
    assert_eq!(found.is_none(), is_damaged, "fsck and the store disagree");
    let Some(found) = found else {
        close(store);
        assert_eq!(contents(dir), before, "a damaged phext was changed");
        return;
    };
    // The worker is killed in the first moment, then after its recovery, then ends in peace.
    drop(store);
    assert_eq!(scrolls_of(&mut open(dir)), found);
    let mut store = open(dir);
    assert_eq!(scrolls_of(&mut store), found);
    run_jobs(&mut store);
    drop(store);
    let mut store = open(dir);
    assert_eq!(scrolls_of(&mut store), found);
    let expected = write(&mut store, found);
    close(store);
    assert_eq!(scrolls_of(&mut open(dir)), expected);
    assert!(!has_damage(dir), "a good directory became a damaged one");
}

/// Keys are read, and others go on where they end; or they are damaged, and no phext is written.
fn check_keys(dir: &Path, input_bytes: usize) {
    let (before, is_damaged) = (fs::read(dir.join(".keys")).unwrap(), has_damage(dir));
    let key = Some(WriteKey::new(KeyOrigin::Client, "a key that no input has"));
    let delete = Write { at: Coordinate::ORIGIN, edit: Edit::Remove, expected: None, key };
    let nothing = PhextName::parse("nothing").unwrap();
    for is_known in [false, true] {
        let mut store = open(dir);
        match assert_proportional(input_bytes, || store.write(&nothing, &delete)) {
            Ok(pending) => assert_eq!(pending.into_inner_undurable().is_replay, is_known),
            Err(StoreError::Damaged(_)) => {
                close(store);
                assert!(is_damaged, "fsck and the store disagree");
                assert_eq!(fs::read(dir.join(".keys")).unwrap(), before, "damaged keys were changed");
                return;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(!is_damaged, "fsck and the store disagree");
        run_jobs(&mut store);
    }
    assert!(!has_damage(dir), "good keys became damaged ones");
}

/// A write goes on where the journal ends.
fn write(store: &mut Store, mut found: Vec<(Coordinate, String)>) -> Vec<(Coordinate, String)> {
    let edit = Edit::Append("and more".to_owned());
    let write = Write { at: Coordinate::ORIGIN, edit, expected: None, key: None };
    let (_, commit_points) = loop {
        match store.write(&name(), &write) {
            Ok(written) => break written.into_parts(),
            // It does not know yet what is in the directory.
            Err(StoreError::NotYet) => {
                let scan = store.next_scan().unwrap();
                store.finish_scan(scan.run());
            }
            Err(error) => panic!("{error}"),
        }
    };
    run_jobs(store);
    assert!(store.is_durable(&commit_points).unwrap());
    match found.first_mut().filter(|(at, _)| *at == Coordinate::ORIGIN) {
        Some((_, text)) => text.push_str("and more"),
        None => found.insert(0, (Coordinate::ORIGIN, "and more".to_owned())),
    }
    found
}

fn open(dir: &Path) -> Store {
    Store::open(
        DataDirectory::open(dir).unwrap(),
        Limits { quota_bytes: None, phexts: None, coordinate: None, memory_bytes: 64 << 20 },
    )
    .unwrap()
}

fn name() -> PhextName {
    PhextName::parse("notes").unwrap()
}

fn scrolls_of(store: &mut Store) -> Vec<(Coordinate, String)> {
    scrolls(store.read(&name()).unwrap().into_inner_undurable())
}

fn run_jobs(store: &mut Store) {
    loop {
        let jobs = store.next_jobs();
        if jobs.is_empty() {
            break;
        }
        jobs.into_iter().for_each(|job| store.finish(job.run()));
    }
    assert!(!store.is_in_doubt());
}

fn close(mut store: Store) {
    store.close();
    run_jobs(&mut store);
    assert!(store.is_idle());
}

fn has_damage(dir: &Path) -> bool {
    let report = fsck::check(dir).unwrap();
    assert!(report.files.iter().all(|file| !matches!(file.finding, Finding::Unreadable(_))));
    report.files.iter().any(|file| matches!(file.finding, Finding::Damaged(_)))
}

/// The phext's files; a lock or a reserve may come and go.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let phext = entries.filter(|path| path.file_stem().is_some_and(|stem| stem == "notes"));
    phext.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

/// Lets the journal's base be the text that is there.
fn name_text(journal: &mut [u8], text: Option<&[u8]>) {
    let Some(base) = journal.get_mut(BASE_DIGEST..BASE_DIGEST + 25) else { return };
    base.fill(0);
    if let Some(text) = text {
        base[0] = 1;
        base[1..9].copy_from_slice(&(text.len() as u64).to_le_bytes());
        base[9..].copy_from_slice(&xxhash_rust::xxh3::xxh3_128(text).to_le_bytes());
    }
}

/// Writes the checksums that the bytes should have.
fn mend(journal: &mut [u8], header: bool, records: bool) {
    let Some((head, mut rest)) = journal.split_at_mut_checked(FIRST_RECORD) else { return };
    if header {
        leave_room(&mut head[BASE_SEQUENCE..], 0);
        let crc = crc32c::crc32c(&head[..HEADER_CRC]);
        head[HEADER_CRC..].copy_from_slice(&crc.to_le_bytes());
    }
    let generation = crc32c::crc32c(&head[GENERATION]);
    let is_masked = head[FORMAT] == b'2';
    let mask = if is_masked { u64::from_le_bytes(head[GENERATION].try_into().unwrap()) } else { 0 };
    while records && let Some((prefix, behind)) = rest.split_first_chunk_mut::<8>() {
        let length = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]);
        let Some((body, next)) = behind.split_at_mut_checked(length as usize) else { return };
        leave_room(body, mask);
        come_near(body);
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(generation, &prefix[..4]), body);
        prefix[4..].copy_from_slice(&crc.to_le_bytes());
        rest = next;
    }
}

/// Brings the scroll of an edit to where no part has more than 17 bits. Farther away, a phext of a few letters would be
/// gigabytes of breaks; a quota keeps the store from writing such a record.
fn come_near(body: &mut [u8]) {
    let (Some(1..=3), Some(parts)) = (body.get(KIND).copied(), body.get_mut(PLACE)) else { return };
    for part in parts.chunks_exact_mut(4) {
        part[2] &= 1;
        part[3] = 0;
    }
}

/// Makes a sequence smaller that is hardly below the largest one.
fn leave_room(bytes: &mut [u8], mask: u64) {
    let Some(bytes) = bytes.first_chunk_mut::<8>() else { return };
    let sequence = u64::from_le_bytes(*bytes) ^ mask;
    if (LARGEST_FOUND - LEFT_OUT..=LARGEST_FOUND).contains(&sequence) {
        *bytes = ((sequence - LEFT_OUT - 1) ^ mask).to_le_bytes();
    }
}
