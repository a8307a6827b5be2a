//! Torn and damaged journals with texts that look like records: they are told apart, in linear time whatever the
//! text is. What is counted is the bytes that are read, for no checksum is computed of others.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::store::disk::{DiskFile, Identity};
use crate::store::journal::{Base, Journal, JournalDamage, first_record, read_header};
use crate::store::record::{Format, Generation, SMALLEST_BYTES, Stamp, encode};
use crate::store::recovery::JournalSummary;

const TEXT_BYTES: usize = 1 << 20;

/// What reading may cost beside its share: a search's spare budget, and a window for it.
const SPARE_BYTES: u64 = 64 * 1024 + 256 * 1024;

/// Where a record's text begins: behind what every record has, and a coordinate.
const TEXT_AT: usize = SMALLEST_BYTES + 36;

/// A file that counts what is read from it.
#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    read: AtomicU64,
}

impl DiskFile for Counted {
    fn identity(&self) -> io::Result<Identity> {
        let bytes = self.bytes.len() as u64;
        let (modified_s, modified_ns, changed_s, changed_ns) = (0, 0, 0, 0);
        Ok(Identity { inode: 1, modified_s, modified_ns, changed_s, changed_ns, bytes, is_file: true })
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        unreachable!("nothing is written to it")
    }

    fn set_bytes(&self, _: u64) -> io::Result<()> {
        unreachable!("nothing is written to it")
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        unreachable!("nothing is written to it")
    }

    fn sync_data(&self) -> io::Result<()> {
        unreachable!("nothing is written to it")
    }

    fn sync_all(&self) -> io::Result<()> {
        unreachable!("nothing is written to it")
    }
}

/// What a journal is found to be, and how many bytes are read to find that.
fn summarize_journal(bytes: &[u8]) -> (Result<u64, JournalDamage>, u64) {
    let file = Arc::new(Counted { bytes: bytes.to_vec(), read: AtomicU64::new(0) });
    let found = JournalSummary::read(Arc::clone(&file) as Arc<dyn DiskFile>).unwrap();
    (found.map(|summary| summary.end.bytes), file.read.load(Ordering::Relaxed))
}

/// A journal, and where each of its records is.
struct WriteReceipt {
    bytes: Vec<u8>,
    records: Vec<Range<usize>>,
    generation: Generation,
}

/// The record with the long text.
const LONG: usize = 2;

/// Writes a journal of four records, each durable before the next: two short ones, a long one, and a short one.
fn journal(format: Format) -> WriteReceipt {
    let disk = SimDisk::new(1);
    let name = journal_file("notes");
    let file: Arc<dyn DiskFile> = disk.create(&name).unwrap().into();
    Journal::create(Arc::clone(&file), &Base { sequence: 0, digest: None }, 0).unwrap();
    if format == Format::Plain {
        let mut header = disk.bytes(&name).unwrap();
        header[6] = b'1';
        let crc = crc32c::crc32c(&header[..53]);
        header[53..].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&header, 0).unwrap();
    }
    let generation = read_header(&*file).unwrap().unwrap().generation;
    assert_eq!(generation.format, format);
    let mut journal = Journal { file: Arc::clone(&file), generation, bytes: first_record() };
    let texts = ["first".to_owned(), "second".to_owned(), "x".repeat(TEXT_BYTES), "last".to_owned()];
    let mut records = Vec::new();
    for (text, sequence) in texts.into_iter().zip(1..) {
        let stamp = Stamp { sequence, durable: sequence - 1, time_us: 1 };
        let (start, answer_bytes) = (usize::try_from(journal.bytes).unwrap(), text.len() as u64);
        let edit = Cow::Owned(Edit::Replace(text));
        let mut record = Vec::new();
        encode(&stamp, &Entry::Edit { at: at(ORIGIN), edit, answer_bytes, key: None }, &mut record);
        journal.append(&mut record).unwrap();
        records.push(start..usize::try_from(journal.bytes).unwrap());
    }
    WriteReceipt { bytes: disk.bytes(&name).unwrap(), records, generation }
}

impl WriteReceipt {
    /// The same with another long text. Its checksum is wrong then: a torn or damaged record is in front of it.
    fn with_text(&self, text: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[self.records[LONG].start + TEXT_AT..][..TEXT_BYTES].copy_from_slice(text);
        bytes
    }
}

/// How far what looks like a record says that it goes.
#[derive(Debug, Clone, Copy)]
enum Reach {
    ToTheEnd,
    Half,
    ToTheNext,
    Shortest,
}

/// The beginnings of records, so many bytes apart.
fn heads(spacing: usize, reach: Reach, mask: u64) -> Vec<u8> {
    let mut text = vec![b'x'; TEXT_BYTES];
    for (head, number) in (0..TEXT_BYTES).step_by(spacing).zip(0_u64..) {
        let length = match reach {
            Reach::ToTheEnd => (TEXT_BYTES - head).saturating_sub(16),
            Reach::Half => (TEXT_BYTES - head) / 2,
            Reach::ToTheNext => spacing - 8,
            Reach::Shortest => SMALLEST_BYTES,
        };
        let (sequence, durable) = ((4 + number % 60) ^ mask, 3 ^ mask);
        let words = [length as u64, sequence, durable].map(u64::to_le_bytes).concat();
        let place = &mut text[head..(head + 24).min(TEXT_BYTES)];
        place.copy_from_slice(&words[..place.len()]);
    }
    text
}

/// Beginnings of records that overlap, 8 bytes apart: each word is one's length, the sequence of the one before, and
/// what the one before that says is durable.
fn falling_words(mask: u64) -> Vec<u8> {
    (0..TEXT_BYTES as u64 / 8).rev().flat_map(|word| ((word + 60) ^ mask).to_le_bytes()).collect()
}

fn hostile_texts(mask: u64) -> Vec<(String, Vec<u8>)> {
    let mut texts = vec![("falling words".to_owned(), falling_words(mask))];
    for spacing in [24, 25, 58, 94, 300, 5000] {
        for reach in [Reach::ToTheEnd, Reach::Half, Reach::ToTheNext, Reach::Shortest] {
            texts.push((format!("{reach:?} every {spacing} bytes"), heads(spacing, reach, mask)));
        }
    }
    texts
}

/// Cuts a long text off near its end, and checks what reading costs beside one of letters.
fn assert_cheap_when_torn(format: Format, mask: impl Fn(Generation) -> u64) {
    let written = journal(format);
    let (start, cut) = (written.records[LONG].start, written.records[LONG].end - 3);
    let (found, plain) = summarize_journal(&written.bytes[..cut]);
    assert_eq!(found, Ok(start as u64));
    assert!(plain >= TEXT_BYTES as u64, "{plain} bytes read: nothing was searched");
    for (what, text) in hostile_texts(mask(written.generation)) {
        let (found, read) = summarize_journal(&written.with_text(&text)[..cut]);
        assert_eq!(found, Ok(start as u64), "{format:?}, {what}");
        assert!(read <= 2 * plain + SPARE_BYTES, "{format:?}, {what}: {read} bytes read, {plain} of letters");
    }
}

#[test]
fn no_text_of_a_client_makes_a_torn_journal_cost_more() {
    let written = journal(Format::Masked);
    let (start, cut) = (written.records[LONG].start, written.records[LONG].end - 3);
    let (_, plain) = summarize_journal(&written.bytes[..cut]);
    for (what, text) in hostile_texts(0) {
        assert_eq!(summarize_journal(&written.with_text(&text)[..cut]), (Ok(start as u64), plain), "{what}");
    }
}

#[test]
fn a_text_that_knows_the_mask_costs_at_most_twice_as_much() {
    assert_cheap_when_torn(Format::Masked, Generation::mask);
    assert_cheap_when_torn(Format::Plain, Generation::mask);
}

#[test]
fn damage_in_front_of_such_a_text_is_damage() {
    for format in [Format::Plain, Format::Masked] {
        let written = journal(format);
        let bad = &written.records[LONG - 1];
        for (what, text) in hostile_texts(0) {
            let mut bytes = written.with_text(&text);
            bytes[bad.end - 1] ^= 0x20;
            let damage = Err(JournalDamage::Record { offset: bad.start as u64 });
            assert_eq!(summarize_journal(&bytes).0, damage, "{format:?}, {what}");
        }
    }
}

#[test]
fn a_damaged_length_in_front_of_such_a_text_is_damage() {
    let written = journal(Format::Masked);
    let bad = &written.records[LONG - 1];
    for (what, text) in hostile_texts(0) {
        for byte in 0..4 {
            let mut bytes = written.with_text(&text);
            bytes[bad.start + byte] ^= 0x15;
            let damage = Err(JournalDamage::Record { offset: bad.start as u64 });
            assert_eq!(summarize_journal(&bytes).0, damage, "byte {byte}, {what}");
        }
    }
}

#[test]
fn a_journal_of_the_old_format_is_read_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = sq_shared::layout::journal_file(dir.path(), &name("notes"));
    fs::write(&path, journal(Format::Plain).bytes).unwrap();
    let mut store = open_at(dir.path(), Tuning::DEFAULT);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "last");
    run_jobs(&mut store);
    assert_eq!(fs::read(&path).unwrap()[..8], *b"SQJRNL2\n");
    put(&mut store, "notes", ORIGIN, "new").unwrap();
    drop(store);
    assert_eq!(scroll(&mut open_at(dir.path(), Tuning::DEFAULT), "notes", ORIGIN), "new");
}
