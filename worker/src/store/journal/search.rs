//! Whether a bad record is a journal's torn end or damage: is there a good record behind it which says that it had
//! been durable?
//!
//! What stands behind it may be a client's text, so the search takes linear time whatever it finds. A record is
//! worth a checksum only when its sequence and `durable` fit. Both are masked with the generation, which no client
//! knows, so no text fits. In a journal of the old format, without a mask, a text can be made of prefixes that fit:
//! there checksums have a budget, and what is found last is the record that the bad one's length leads to.

use std::io;

use crate::store::disk::DiskFile;
use crate::store::journal::read_full;
use crate::store::journal::scan::Stop;
use crate::store::journal::window::Window;
use crate::store::record::{Generation, PREFIX_BYTES, Reader, SMALLEST_BYTES, checksum_before_body};

/// Of a record, what must be seen to know whether its numbers fit: prefix, sequence and `durable`.
const HEAD_BYTES: usize = PREFIX_BYTES + 16;

/// How much is read at once for a checksum.
const CHECK_BYTES: usize = 64 * 1024;

/// What a checksum costs beside its bytes, in bytes: a call to the system.
const COST_OF_A_CHECK: u64 = 512;

/// For how many bytes checksums are computed beside as many as the file has.
const SPARE_BUDGET: u64 = 64 * 1024;

/// A search behind a bad record.
pub(super) struct Search<'a> {
    file: &'a dyn DiskFile,
    window: Window<'a>,
    generation: Generation,
    bad: u64,
    fit: Fit,
    budget: u64,
}

/// Which numbers a record must have to tell of damage.
#[derive(Clone, Copy)]
struct Fit {
    mask: u64,
    /// The sequence of the last good record.
    last: u64,
    /// How many records there can be.
    most: u64,
    /// The bad one was durable in any case.
    is_carried: bool,
}

impl Fit {
    fn accepts(self, head: &[u8]) -> bool {
        let mut reader = Reader(head);
        let _prefix = reader.array::<PREFIX_BYTES>();
        let (Some(sequence), Some(durable)) = (reader.u64(), reader.u64()) else { return false };
        let (sequence, durable) = (sequence ^ self.mask, durable ^ self.mask);
        sequence > self.last
            && sequence - self.last <= self.most
            && durable < sequence
            && (durable > self.last || self.is_carried)
    }
}

impl<'a> Search<'a> {
    pub(super) fn new(window: Window<'a>, generation: Generation, stop: &Stop) -> Self {
        let (last, most, is_carried) = (stop.last_sequence, window.bytes, stop.is_carried);
        let fit = Fit { mask: generation.mask(), last, most, is_carried };
        let budget = window.bytes + SPARE_BUDGET;
        Self { file: window.file, window, generation, bad: stop.offset, fit, budget }
    }

    /// Whether there is such a record.
    pub(super) fn finds_record(&mut self) -> io::Result<bool> {
        Ok(self.finds_in_chain()? || self.finds_anywhere()?)
    }

    /// Goes from record to record by the lengths that they claim, which no text between them can hide: right where
    /// the bad one's length is good.
    fn finds_in_chain(&mut self) -> io::Result<bool> {
        let mut offset = self.bad;
        while let Some(length) = self.window.body_bytes(offset)? {
            offset += (PREFIX_BYTES + length) as u64;
            if self.fit.accepts(self.window.from(offset, HEAD_BYTES)?) && self.is_good(offset)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks at every byte behind the bad record's first.
    fn finds_anywhere(&mut self) -> io::Result<bool> {
        let (mut offset, fit) = (self.bad + 1, self.fit);
        loop {
            let bytes = self.window.from(offset, SMALLEST_BYTES)?;
            if bytes.len() < SMALLEST_BYTES {
                return Ok(false);
            }
            let mut heads = bytes.windows(HEAD_BYTES);
            let Some(skipped) = heads.position(|head| fit.accepts(head)) else {
                offset += (bytes.len() - HEAD_BYTES + 1) as u64;
                continue;
            };
            offset += skipped as u64;
            if let Some(length) = self.window.body_bytes(offset)? {
                let Some(budget) = self.budget.checked_sub(COST_OF_A_CHECK + length as u64) else {
                    tracing::warn!(offset, "a journal's torn end is full of what looks like records");
                    return Ok(false);
                };
                self.budget = budget;
                if self.is_good(offset)? {
                    return Ok(true);
                }
            }
            offset += 1;
        }
    }

    /// Whether the record at an offset is whole. Only one whose checksum is right is taken into memory.
    fn is_good(&mut self, offset: u64) -> io::Result<bool> {
        let Some(length) = self.window.body_bytes(offset)? else { return Ok(false) };
        let mut reader = Reader(self.window.from(offset, PREFIX_BYTES)?);
        let (Some(length_bytes), Some(expected)) = (reader.array::<4>(), reader.u32()) else {
            return Ok(false);
        };
        let mut crc = checksum_before_body(self.generation, length_bytes);
        let mut buffer = vec![0; length.min(CHECK_BYTES)];
        let (mut at, end) = (offset + PREFIX_BYTES as u64, offset + (PREFIX_BYTES + length) as u64);
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let piece = buffer.get_mut(..wanted).unwrap_or_default();
            if read_full(self.file, piece, at)? < wanted {
                return Ok(false);
            }
            crc = crc32c::crc32c_append(crc, piece);
            at += wanted as u64;
        }
        let is_right = crc == expected;
        Ok(is_right
            && Window::new(self.file, self.window.bytes).record_at(offset, self.generation)?.is_some())
    }
}
