//! The bytes of a journal as in `docs/store.md`, for tests that damage one.

use std::ops::Range;

/// The header's length, with and without its checksum.
const HEADER_BYTES: usize = 57;
const HEADER_COVERED: usize = 53;

/// The format and the generation in the header.
const FORMAT: usize = 6;
const GENERATION: Range<usize> = 8..16;

/// A record's prefix, which its length does not count: the length, and a checksum.
const PREFIX_BYTES: usize = 8;

/// The two words of a record that are masked with the generation.
const MASKED: Range<usize> = 8..24;

/// A record has 50 bytes after its prefix, an edit then has a coordinate, and the text follows.
pub const TEXT_AT: usize = PREFIX_BYTES + 50 + 36;

/// The positions of the records; the last one may be torn.
///
/// # Panics
/// It is not a journal.
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

/// The format of a journal: `1` or `2`.
pub fn format(bytes: &[u8]) -> char {
    char::from(bytes[FORMAT])
}

/// Converts a journal to the format of earlier versions, without a mask. A torn record stays bad.
///
/// # Panics
/// It is not a journal.
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
