//! One record of a journal, byte by byte. `docs/store.md` draws it.
//!
//! A record is whole or invalid: its checksum covers all of its bytes and its journal's generation, so neither a
//! half-written record nor one of another journal is taken for valid.

use std::borrow::Cow;

use sq_shared::coordinate::Coordinate;

use crate::store::breaks::first_break;
use crate::store::idempotency::{KeyOrigin, RememberedWrite, WriteKey};
use crate::store::phext::Edit;

/// Length and checksum, which the length does not count.
pub(super) const PREFIX_BYTES: usize = 8;

/// What every record has between its prefix and its payload.
const COMMON_BYTES: usize = 50;

/// The first bytes behind the prefix, sequence and `durable`, are masked.
const MASKED_BYTES: usize = 16;

pub(super) const SMALLEST_BYTES: usize = PREFIX_BYTES + COMMON_BYTES;

/// The record of a key without its edit.
pub(super) const KEY_RECORD_BYTES: u64 = (PREFIX_BYTES + COMMON_BYTES + 16) as u64;

/// The longest text of one record: its length has 32 bits, of which the rest of the record needs some.
pub(super) const TEXT_BYTES: usize = u32::MAX as usize - 1024;

/// The longest record: the coordinate of an edit, and its text.
pub(super) const LARGEST_BYTES: usize = SMALLEST_BYTES + 9 * 4 + TEXT_BYTES;

/// The largest valid sequence. No count of writes gets that far, so a larger one is forged; and the largest `u64` would
/// have no successor.
pub(super) const LARGEST_SEQUENCE: u64 = u64::MAX / 2;

/// The largest sequence in a journal that a worker continues. Above it there are numbers left for the worker's own records:
/// one with an invalid number would be lost, or the edits that it says are saved would be applied twice.
pub(super) const LARGEST_FOUND_SEQUENCE: u64 = LARGEST_SEQUENCE - (1 << 32);

const INSERT: u8 = 1;
const UPDATE: u8 = 2;
const DELETE: u8 = 3;
const SAVED: u8 = 4;
const PUBLISHED: u8 = 5;
const KEY: u8 = 6;

/// Tells the records of one journal from those of all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation {
    /// Random, and known to no client.
    pub(super) id: u64,
    pub(super) format: Format,
}

/// How a journal encodes its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Sequence and `durable` are not masked: a client can guess them, and write a text that looks like many records. Such
    /// a journal is read, and replaced before the next write.
    Plain,
    /// Sequence and `durable` are masked with the generation, so no client's text looks like a record.
    Masked,
}

impl Generation {
    /// What sequence and `durable` are XORed with.
    pub(super) fn mask(self) -> u64 {
        match self.format {
            Format::Plain => 0,
            Format::Masked => self.id,
        }
    }
}

/// A record without the generation of its journal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) stamp: Stamp,
    pub(super) entry: Entry<'static>,
}

/// The position and time of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Rises from record to record, over all generations. A carried-over key has the sequence of its journal's base.
    pub(super) sequence: u64,
    /// Every record up to this sequence was durable when this one was written. So an invalid record up to it is damage; a
    /// later one may be a write that a power cut interrupted.
    pub(super) durable: u64,
    /// When it was first written, in microseconds since 1970.
    pub(super) time_us: u64,
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry<'a> {
    /// A change of a scroll.
    Edit {
        at: Coordinate,
        edit: Cow<'a, Edit>,
        /// The number in the answer to the request.
        answer_bytes: u64,
        key: Option<WriteKey>,
    },
    /// A file with this digest, which has all edits up to the sequence, is about to get the phext's name.
    Saved { upto: u64, digest: FileDigest },
    /// The file with all edits up to the sequence has the phext's name, and no power cut can take it away.
    Published { upto: u64 },
    /// A key without its edit, which is in the file already or changed nothing.
    Key { key: WriteKey, fingerprint: u128, answer_bytes: u64 },
}

impl Entry<'_> {
    /// The record of a key without its edit.
    pub(super) fn from_key(key: WriteKey, write: RememberedWrite) -> Self {
        Self::Key { key, fingerprint: write.fingerprint, answer_bytes: write.answer_bytes }
    }

    /// The key of an entry, and what is remembered with it.
    pub(super) fn key(&self, time_us: u64) -> Option<(WriteKey, RememberedWrite)> {
        let (key, fingerprint, answer_bytes) = match self {
            Self::Edit { at, edit, answer_bytes, key } => ((*key)?, fingerprint(at, edit), *answer_bytes),
            Self::Key { key, fingerprint, answer_bytes } => (*key, *fingerprint, *answer_bytes),
            Self::Saved { .. } | Self::Published { .. } => return None,
        };
        Some((key, RememberedWrite { fingerprint, answer_bytes, time_us }))
    }
}

/// Identifies the contents of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileDigest {
    pub(super) bytes: u64,
    /// XXH3, 128 bits.
    pub(super) xxh3: u128,
}

/// Adds a record to a buffer, without mask and checksum: [`seal`] adds those of the journal that takes it.
pub(super) fn encode(stamp: &Stamp, entry: &Entry<'_>, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; PREFIX_BYTES]);
    for word in [stamp.sequence, stamp.durable, stamp.time_us] {
        buffer.extend_from_slice(&word.to_le_bytes());
    }
    match entry {
        Entry::Edit { at, edit, answer_bytes, key } => {
            let (kind, text) = kind_and_text(edit);
            encode_common(kind, key.as_ref(), *answer_bytes, buffer);
            at.parts().iter().for_each(|part| buffer.extend_from_slice(&part.to_le_bytes()));
            buffer.extend_from_slice(text.as_bytes());
        }
        Entry::Saved { upto, digest } => {
            encode_common(SAVED, None, *upto, buffer);
            buffer.extend_from_slice(&digest.bytes.to_le_bytes());
            buffer.extend_from_slice(&digest.xxh3.to_le_bytes());
        }
        Entry::Published { upto } => encode_common(PUBLISHED, None, *upto, buffer),
        Entry::Key { key, fingerprint, answer_bytes } => {
            encode_common(KEY, Some(key), *answer_bytes, buffer);
            buffer.extend_from_slice(&fingerprint.to_le_bytes());
        }
    }
    write_length(buffer.get_mut(start..).unwrap_or_default());
}

fn write_length(record: &mut [u8]) {
    let Some((prefix, body)) = record.split_first_chunk_mut::<PREFIX_BYTES>() else { return };
    // A text is never longer than `TEXT_BYTES`.
    let [a, b, c, d] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    *prefix = [a, b, c, d, 0, 0, 0, 0];
}

/// Masks each record, and writes its checksum.
pub(super) fn seal(generation: Generation, records: &mut [u8]) {
    change_each(records, |length, crc, body| {
        toggle_mask(generation, body);
        *crc = checksum(generation, length, body).to_le_bytes();
    });
}

/// Removes the masks, so that another journal may take the records.
pub(super) fn unseal(generation: Generation, records: &mut [u8]) {
    change_each(records, |_, _, body| toggle_mask(generation, body));
}

/// Visits the length, checksum and body of each record.
fn change_each(mut records: &mut [u8], mut change: impl FnMut([u8; 4], &mut [u8; 4], &mut [u8])) {
    while let Some((&mut length, rest)) = records.split_first_chunk_mut::<4>() {
        let body_bytes = u32::from_le_bytes(length) as usize;
        let Some((crc, rest)) = rest.split_first_chunk_mut::<4>() else { return };
        let Some((body, rest)) = rest.split_at_mut_checked(body_bytes) else { return };
        change(length, crc, body);
        records = rest;
    }
}

fn toggle_mask(generation: Generation, body: &mut [u8]) {
    let mask = generation.mask().to_le_bytes();
    body.iter_mut().take(MASKED_BYTES).zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

impl Record {
    /// Reads a record's body; the checksum has been verified. `None` when it is invalid.
    pub(super) fn decode(body: &[u8], generation: Generation) -> Option<Self> {
        let (mut reader, mask) = (Reader(body), generation.mask());
        let (sequence, durable) = (reader.u64()? ^ mask, reader.u64()? ^ mask);
        let stamp = Stamp { sequence, durable, time_us: reader.u64()? };
        // A record can only refer to earlier ones.
        if stamp.sequence > LARGEST_SEQUENCE || stamp.durable > stamp.sequence {
            return None;
        }
        let earlier = |upto| (upto <= stamp.sequence).then_some(upto);
        let (kind, origin) = (reader.array::<1>()?, reader.array::<1>()?);
        let digest = reader.u128()?;
        let number = reader.u64()?;
        let key = match origin {
            [0] => None,
            [1] => Some(WriteKey { origin: KeyOrigin::Client, digest }),
            [2] => Some(WriteKey { origin: KeyOrigin::Gateway, digest }),
            _ => return None,
        };
        let entry = match kind {
            [INSERT | UPDATE | DELETE] => {
                let at = reader.coordinate()?;
                let text = std::str::from_utf8(reader.0).ok().filter(|text| first_break(text).is_none())?;
                let edit = Cow::Owned(edit_of(kind, text)?);
                Entry::Edit { at, edit, answer_bytes: number, key }
            }
            [SAVED] => {
                let digest = FileDigest { bytes: reader.u64()?, xxh3: reader.u128()? };
                Entry::Saved { upto: earlier(number)?, digest }
            }
            [PUBLISHED] => Entry::Published { upto: earlier(number)? },
            [KEY] => Entry::Key { key: key?, fingerprint: reader.u128()?, answer_bytes: number },
            _ => return None,
        };
        Some(Self { stamp, entry })
    }
}

pub(super) fn checksum(generation: Generation, length: [u8; 4], body: &[u8]) -> u32 {
    crc32c::crc32c_append(checksum_before_body(generation, length), body)
}

/// The checksum's state before a record's body.
pub(super) fn checksum_before_body(generation: Generation, length: [u8; 4]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&generation.id.to_le_bytes()), &length)
}

fn encode_common(kind: u8, key: Option<&WriteKey>, number: u64, buffer: &mut Vec<u8>) {
    let origin = match key.map(|key| key.origin) {
        None => 0,
        Some(KeyOrigin::Client) => 1,
        Some(KeyOrigin::Gateway) => 2,
    };
    buffer.extend_from_slice(&[kind, origin]);
    buffer.extend_from_slice(&key.map_or(0, |key| key.digest).to_le_bytes());
    buffer.extend_from_slice(&number.to_le_bytes());
}

fn kind_and_text(edit: &Edit) -> (u8, &str) {
    match edit {
        Edit::Append(text) => (INSERT, text),
        Edit::Replace(text) => (UPDATE, text),
        Edit::Remove => (DELETE, ""),
    }
}

fn edit_of(kind: [u8; 1], text: &str) -> Option<Edit> {
    match kind {
        [INSERT] => Some(Edit::Append(text.to_owned())),
        [UPDATE] => Some(Edit::Replace(text.to_owned())),
        [DELETE] => text.is_empty().then_some(Edit::Remove),
        _ => None,
    }
}

/// Identifies what a request asks for: a key must not come with another one.
pub(super) fn fingerprint(at: &Coordinate, edit: &Edit) -> u128 {
    let (kind, text) = kind_and_text(edit);
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(&[kind]);
    at.parts().iter().for_each(|part| hash.update(&part.to_le_bytes()));
    hash.update(text.as_bytes());
    hash.digest128()
}

/// Reads numbers from the front of a slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    fn coordinate(&mut self) -> Option<Coordinate> {
        let mut parts = [0; 9];
        for part in &mut parts {
            *part = self.u32()?;
        }
        Coordinate::from_parts(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = WriteKey> {
        let origin = prop_oneof![Just(KeyOrigin::Client), Just(KeyOrigin::Gateway)];
        (origin, any::<u128>()).prop_map(|(origin, digest)| WriteKey { origin, digest })
    }

    fn entries() -> impl Strategy<Value = Entry<'static>> {
        let at = prop::array::uniform9(1..=u32::MAX);
        let edit = prop_oneof![
            "\\PC{0,40}".prop_map(Edit::Append),
            "\\PC{0,40}".prop_map(Edit::Replace),
            Just(Edit::Remove)
        ];
        prop_oneof![
            (at, edit, any::<u64>(), prop::option::of(keys())).prop_map(|(at, edit, answer_bytes, key)| {
                let at = Coordinate::from_parts(at).unwrap();
                Entry::Edit { at, edit: Cow::Owned(edit), answer_bytes, key }
            }),
            (any::<u64>(), any::<u64>(), any::<u128>())
                .prop_map(|(upto, bytes, xxh3)| Entry::Saved { upto, digest: FileDigest { bytes, xxh3 } }),
            any::<u64>().prop_map(|upto| Entry::Published { upto }),
            (keys(), any::<u128>(), any::<u64>()).prop_map(|(key, fingerprint, answer_bytes)| {
                Entry::Key { key, fingerprint, answer_bytes }
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_no_cut_is(
            entry in entries(), sequence in 0..=LARGEST_SEQUENCE, durable: u64, time_us: u64, id: u64, is_masked: bool
        ) {
            let format = if is_masked { Format::Masked } else { Format::Plain };
            let generation = Generation { id, format };
            let earlier = |upto: u64| upto % (sequence + 1);
            let entry = match entry {
                Entry::Saved { upto, digest } => Entry::Saved { upto: earlier(upto), digest },
                Entry::Published { upto } => Entry::Published { upto: earlier(upto) },
                entry => entry,
            };
            let record = Record { stamp: Stamp { sequence, durable: earlier(durable), time_us }, entry };
            let mut bytes = Vec::new();
            encode(&record.stamp, &record.entry, &mut bytes);
            // As after a journal that refused it.
            let other = Generation { id: !id, format: Format::Masked };
            seal(other, &mut bytes);
            unseal(other, &mut bytes);
            seal(generation, &mut bytes);
            prop_assert!(bytes.len() >= SMALLEST_BYTES);
            let (length, rest) = bytes.split_first_chunk::<4>().unwrap();
            let (crc, body) = rest.split_first_chunk::<4>().unwrap();
            prop_assert_eq!(u32::from_le_bytes(*length) as usize, body.len());
            prop_assert_eq!(u32::from_le_bytes(*crc), checksum(generation, *length, body));
            prop_assert_ne!(u32::from_le_bytes(*crc), checksum(other, *length, body));
            prop_assert_eq!(Record::decode(body, generation), Some(record));
            for end in 0..body.len().min(SMALLEST_BYTES - PREFIX_BYTES) {
                prop_assert_eq!(Record::decode(&body[..end], generation), None);
            }
        }
    }
}
