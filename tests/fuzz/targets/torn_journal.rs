//! A torn journal whose last text is the input over and over: finding out that it is a torn end costs at most twice what it
//! costs with a text of letters. What is counted is not time but the bytes that this process reads: the store computes
//! no checksum of bytes that it has not just read.
//!
//! An input is a byte of choices and the text. Where that says so, each repetition has at some place how long the rest
//! of the text is, as a record's length would be.

use std::fs;

use sq_worker::store::fsck::{self, Finding};
use tempfile::TempDir;

use super::journal::memory_folder;

/// How long the text is.
const TEXT_BYTES: usize = 128 * 1024;

/// What reading may cost beside its share: what a search may read where its budget is at its end, a window more, and
/// the count itself.
const SPARE_BYTES: u64 = 192 * 1024;

/// The store's first format, which has no mask; in the second, the generation is the mask.
const IS_OLD: u8 = 1;
const KNOWS_MASK: u8 = 2;
const HAS_LENGTHS: u8 = 4;
/// The other bits say where the length stands.
const PLACE_SHIFT: u32 = 3;

const GENERATION: [u8; 8] = *b"\x9e\x37\x79\xb9\x7f\x4a\x7c\x15";

pub(crate) fn check(data: &[u8]) {
    let Some((choices, pattern)) = data.split_first() else { return };
    if pattern.is_empty() {
        return;
    }
    let is_old = choices & IS_OLD != 0;
    let plain = read_for(&journal(is_old, &[b'x'; TEXT_BYTES]));
    let hostile = read_for(&journal(is_old, &text(*choices, pattern)));
    assert!(plain >= TEXT_BYTES as u64, "{plain} bytes read: nothing was searched");
    assert!(hostile <= 2 * plain + SPARE_BYTES, "{hostile} bytes read, and {plain} for letters");
}

fn text(choices: u8, pattern: &[u8]) -> Vec<u8> {
    let mut text: Vec<u8> = pattern.iter().copied().cycle().take(TEXT_BYTES).collect();
    if choices & HAS_LENGTHS != 0 {
        let place = usize::from(choices >> PLACE_SHIFT) % pattern.len();
        for at in (place..TEXT_BYTES - 4).step_by(pattern.len().max(4)) {
            let rest = u32::try_from((TEXT_BYTES - at).saturating_sub(16)).unwrap();
            text[at..at + 4].copy_from_slice(&rest.to_le_bytes());
        }
    }
    if choices & KNOWS_MASK != 0 {
        text.chunks_exact_mut(8).for_each(mask);
    }
    text
}

/// A journal with a good record, and the beginning of one with this text. `docs/store.md` draws it.
fn journal(is_old: bool, text: &[u8]) -> Vec<u8> {
    let magic = if is_old { b"SQJRNL1\n" } else { b"SQJRNL2\n" };
    // No base, no file, and no keys that are carried over.
    let mut bytes = [magic.as_slice(), &GENERATION, &[0; 37]].concat();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes.extend(record(is_old, 1, b"first"));
    let mut torn = record(is_old, 2, text);
    torn.pop();
    bytes.extend(torn);
    bytes
}

/// A text for a scroll.
fn record(is_old: bool, sequence: u8, text: &[u8]) -> Vec<u8> {
    let mut numbers = [[sequence, 0, 0, 0, 0, 0, 0, 0], [sequence - 1, 0, 0, 0, 0, 0, 0, 0]];
    if !is_old {
        numbers.iter_mut().for_each(|number| mask(number));
    }
    let coordinate = [1_u8, 0, 0, 0].repeat(9);
    let (time, replace, key, answer) = ([0; 8], [2, 0], [0; 16], [0; 8]);
    let body = [numbers.as_flattened(), &time, &replace, &key, &answer, &coordinate, text].concat();
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&GENERATION), &length), &body);
    [length.as_slice(), &crc.to_le_bytes(), &body].concat()
}

fn mask(word: &mut [u8]) {
    word.iter_mut().zip(GENERATION).for_each(|(byte, mask)| *byte ^= mask);
}

/// How many bytes are read to find a torn end in a journal.
fn read_for(journal: &[u8]) -> u64 {
    let dir = TempDir::with_prefix_in("sq-fuzz-", memory_folder()).unwrap();
    fs::write(dir.path().join("notes.journal"), journal).unwrap();
    let before = read_so_far();
    let report = fsck::check(dir.path()).unwrap();
    let read = read_so_far() - before;
    let findings = report.files.iter().map(|file| &file.finding);
    let torn: Vec<u64> = findings
        .filter_map(|finding| match finding {
            Finding::Journal { records: 1, torn_bytes, .. } => Some(*torn_bytes),
            _ => None,
        })
        .collect();
    assert_eq!(torn.len(), 1, "{report:?}");
    assert!(torn[0] > TEXT_BYTES as u64, "{report:?}");
    read
}

/// How many bytes this process has read, from files in memory too: `rchar` of proc_pid_io(5).
fn read_so_far() -> u64 {
    let counts = fs::read_to_string("/proc/self/io").unwrap();
    let count = counts.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    count.parse().unwrap()
}
