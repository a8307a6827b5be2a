//! The bytes of a journal, as `docs/store.md` draws them: for tests that do harm to one.

use std::ops::Range;

/// How long the header is, and how long it is without its checksum.
const HEADER_BYTES: usize = 57;
const HEADER_COVERED: usize = 53;

/// In the header, which format it is, and the generation.
const FORMAT: usize = 6;
const GENERATION: Range<usize> = 8..16;

/// What stands in front of what a record's length counts: the length, and a checksum.
const PREFIX_BYTES: usize = 8;

/// In a record, the two words that are masked with the generation.
const MASKED: Range<usize> = 8..24;

/// Behind its prefix a record has 50 bytes, and an edit then a coordinate; then comes the text.
pub const TEXT_AT: usize = PREFIX_BYTES + 50 + 36;

/// Where the records are; the last one may have been cut off.
///
/// # Panics
/// It is no journal.
pub fn records(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut records = Vec::new();
    let mut at = HEADER_BYTES;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
        let end = at + PREFIX_BYTES + usize::try_from(length).expect("32 bits");
        records.push(at..end.min(bytes.len()));
        at = end;
    }
    records
}

/// Which format a journal has: `1` or `2`.
pub fn format(bytes: &[u8]) -> char {
    char::from(bytes[FORMAT])
}

/// Turns a journal into one as earlier versions wrote it, without a mask. A record that was cut off stays bad.
///
/// # Panics
/// It is no journal.
pub fn make_old(bytes: &mut [u8]) {
    assert_eq!(format(bytes), '2');
    bytes[FORMAT] = b'1';
    let crc = crc32c::crc32c(&bytes[..HEADER_COVERED]);
    bytes[HEADER_COVERED..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    let generation = bytes[GENERATION].to_vec();
    for record in records(bytes) {
        let record = &mut bytes[record];
        let Some(words) = record.get_mut(MASKED) else { return };
        words.iter_mut().zip(generation.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&generation), &record[..4]);
        let crc = crc32c::crc32c_append(crc, &record[PREFIX_BYTES..]);
        record[4..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
    }
}
