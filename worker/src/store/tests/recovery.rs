//! Journals that were cut, torn or bent.

use super::*;
use crate::store::journal::{Base, Journal, JournalDamage, first_record};
use crate::store::record::{Entry, LARGEST_FOUND_SEQUENCE, Stamp, encode};

/// A directory with a phext of five writes that are in its journal alone, and where each of its records ends.
fn five_writes(dir: &Path) -> Vec<u64> {
    let mut store = open_at(dir, unsaved());
    let mut ends = vec![first_record()];
    for letter in ["a", "b", "c", "d", "e"] {
        write(&mut store, "notes", at(ORIGIN), append(letter)).unwrap();
        ends.push(fs::metadata(journal_path(dir)).unwrap().len());
    }
    ends
}

fn journal_path(dir: &Path) -> std::path::PathBuf {
    sq_shared::layout::journal_file(dir, &name("notes"))
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}

/// Every file of a directory, with its bytes.
fn contents(dir: &Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(Result::unwrap);
    files.map(|file| (file.file_name(), fs::read(file.path()).unwrap())).collect()
}

#[test]
fn every_cut_of_a_journal_gives_the_first_writes() {
    let dir = tempfile::tempdir().unwrap();
    let ends = five_writes(dir.path());
    let whole = fs::read(journal_path(dir.path())).unwrap();
    for length in usize_of(ends[0])..=whole.len() {
        fs::write(journal_path(dir.path()), &whole[..length]).unwrap();
        let count = ends.iter().filter(|end| usize_of(**end) <= length).count() - 1;
        let mut store = open_at(dir.path(), unsaved());
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "abcde"[..count], "{length}");
        let count = list(&mut store).iter().map(|listed| listed.scrolls.unwrap()).sum::<usize>();
        assert_eq!(count, usize::from(length >= usize_of(ends[1])));
    }
}

#[test]
fn what_is_written_after_a_cut_stays() {
    let dir = tempfile::tempdir().unwrap();
    let ends = five_writes(dir.path());
    let whole = fs::read(journal_path(dir.path())).unwrap();
    for length in [ends[2], ends[2] + 1, ends[3] - 1].map(usize_of) {
        fs::write(journal_path(dir.path()), &whole[..length]).unwrap();
        let mut store = open_at(dir.path(), unsaved());
        write(&mut store, "notes", at(ORIGIN), append("!")).unwrap();
        drop(store);
        assert_eq!(scroll(&mut open_at(dir.path(), unsaved()), "notes", ORIGIN), "ab!");
        fs::remove_file(sq_shared::layout::phext_file(dir.path(), &name("notes"))).unwrap_or_default();
    }
}

/// The next record behind the largest one could not be read: a save would be forgotten, and its writes applied twice.
#[test]
fn a_sequence_that_is_too_large_is_refused() {
    for (sequence, is_good) in [(LARGEST_FOUND_SEQUENCE, true), (LARGEST_FOUND_SEQUENCE + 1, false)] {
        let disk = SimDisk::new(1);
        let file = disk.create(&FileName::Journal(name("notes"))).unwrap().into();
        let mut journal = Journal::create(file, &Base { sequence: 0, digest: None }, 0).unwrap();
        let stamp = Stamp { sequence, durable: 0, time_us: 1 };
        let edit = Cow::Owned(append("once"));
        let mut record = Vec::new();
        encode(&stamp, &Entry::Edit { at: at(ORIGIN), edit, answer_bytes: 4, key: None }, &mut record);
        journal.append(&mut record).unwrap();
        let mut store = on_sim(&disk, Tuning::DEFAULT);
        assert_eq!(store.read(&name("notes")).is_ok(), is_good, "{sequence}");
    }
}

#[test]
fn a_header_that_is_damaged_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ends = five_writes(dir.path());
    let whole = fs::read(journal_path(dir.path())).unwrap();
    let header = usize_of(ends[0]);
    let flipped = (0..header).map(|offset| {
        let mut bytes = whole.clone();
        bytes[offset] ^= 4;
        bytes
    });
    for bytes in flipped.chain((0..header).map(|length| whole[..length].to_vec())) {
        fs::write(journal_path(dir.path()), &bytes).unwrap();
        let mut store = open_at(dir.path(), unsaved());
        let refusal = store.read(&name("notes")).unwrap_err();
        assert!(matches!(refusal, StoreError::Damaged(Damage::Journal(JournalDamage::Header))));
        assert_eq!(fs::read(journal_path(dir.path())).unwrap(), bytes);
    }
}

#[test]
fn a_flipped_bit_in_a_durable_record_is_refused_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let ends = five_writes(dir.path());
    let whole = fs::read(journal_path(dir.path())).unwrap();
    put(&mut open_at(dir.path(), Tuning::DEFAULT), "other", ORIGIN, "other").unwrap();
    for offset in usize_of(ends[0])..usize_of(ends[4]) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x20;
        fs::write(journal_path(dir.path()), &bytes).unwrap();
        let before = contents(dir.path());
        let mut store = open_at(dir.path(), unsaved());
        let damaged = *ends.iter().rfind(|end| usize_of(**end) <= offset).unwrap();
        for _ in 0..2 {
            let refusal = store.read(&name("notes")).unwrap_err();
            let StoreError::Damaged(Damage::Journal(JournalDamage::Record { offset })) = refusal else {
                panic!("{offset}: {refusal}");
            };
            assert_eq!(offset, damaged);
        }
        assert!(matches!(put(&mut store, "notes", ORIGIN, "x"), Err(StoreError::Damaged(_))));
        assert_eq!(scroll(&mut store, "other", ORIGIN), "other");
        let listed: Vec<_> = list(&mut store).into_iter().map(|listed| listed.scrolls).collect();
        assert_eq!(listed, [None, Some(1)]);
        assert_eq!(contents(dir.path()), before);
    }
}

#[test]
fn a_flip_in_the_last_record_is_a_write_that_was_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let ends = five_writes(dir.path());
    let whole = fs::read(journal_path(dir.path())).unwrap();
    for offset in usize_of(ends[4])..usize_of(ends[5]) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x20;
        fs::write(journal_path(dir.path()), &bytes).unwrap();
        let mut store = open_at(dir.path(), unsaved());
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "abcd");
    }
}

#[test]
fn garbage_behind_the_end_is_cut_off() {
    for garbage in [vec![0; 5000], b"\x32\0\0\0 and so on".repeat(200), vec![0xff; 300]] {
        let dir = tempfile::tempdir().unwrap();
        five_writes(dir.path());
        let mut bytes = fs::read(journal_path(dir.path())).unwrap();
        bytes.extend_from_slice(&garbage);
        fs::write(journal_path(dir.path()), &bytes).unwrap();
        let mut store = open_at(dir.path(), unsaved());
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "abcde");
        write(&mut store, "notes", at(ORIGIN), append("f")).unwrap();
        drop(store);
        assert_eq!(scroll(&mut open_at(dir.path(), unsaved()), "notes", ORIGIN), "abcdef");
    }
}

#[test]
fn records_of_another_journal_are_garbage() {
    let dir = tempfile::tempdir().unwrap();
    five_writes(dir.path());
    let mut bytes = fs::read(journal_path(dir.path())).unwrap();
    let other = tempfile::tempdir().unwrap();
    let ends = five_writes(other.path());
    bytes.extend_from_slice(&fs::read(journal_path(other.path())).unwrap()[usize_of(ends[0])..]);
    fs::write(journal_path(dir.path()), &bytes).unwrap();
    assert_eq!(scroll(&mut open_at(dir.path(), unsaved()), "notes", ORIGIN), "abcde");
}

#[test]
fn a_carried_over_key_that_is_damaged_hides_no_write() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning { compact_journal_bytes: 0, ..Tuning::DEFAULT });
    for text in ["one", "two"] {
        let key = Some(WriteKey::new(KeyOrigin::Client, text));
        let write = Write { at: at(ORIGIN), edit: append(&text.repeat(200)), expected: None, key };
        drop(store.write(&name("notes"), &write).unwrap());
        run_jobs(&mut store);
    }
    put(&mut store, "notes", ORIGIN, "small").unwrap();
    let bytes = disk.bytes(&journal_file("notes")).unwrap();
    for offset in 0..2 * 74 {
        let mut bytes = bytes.clone();
        bytes[usize_of(first_record()) + offset] ^= 1;
        let disk = disk.kill();
        disk.replace_behind_our_back(&journal_file("notes"), &bytes);
        let refusal =
            on_sim(&disk, unsaved()).read(&name("notes")).map(Pending::into_inner_undurable).map(Phext::join);
        assert!(matches!(refusal, Err(StoreError::Damaged(Damage::Journal(_)))), "{offset} {refusal:?}");
    }
}
