//! Tells damage from a torn end: damage is an invalid record of which a valid record behind it says that it was durable.
//!
//! A client's text may be behind it, so the search takes linear time whatever it finds. It computes a checksum only where
//! sequence and `durable` are plausible. Both are masked with the generation, which no client knows, so no text is. In a
//! journal of the old format, without masks, a text can imitate many records: there the checksums have a budget, and
//! following the lengths finds the record behind an undamaged length in any case.

use std::io;

use crate::store::disk::DiskFile;
use crate::store::journal::read_full;
use crate::store::journal::scan::FirstInvalid;
use crate::store::journal::window::Window;
use crate::store::record::{Generation, PREFIX_BYTES, Reader, SMALLEST_BYTES, checksum_before_body};

/// Prefix, sequence and `durable`: what is needed to see whether a record is plausible.
const HEAD_BYTES: usize = PREFIX_BYTES + 16;

const CHECK_BYTES: usize = 64 * 1024;

/// The fixed cost of a checksum, in bytes: a system call.
const COST_OF_A_CHECK: u64 = 512;

/// The budget is the length of the file and this.
const SPARE_BUDGET: u64 = 64 * 1024;

/// A search behind an invalid record.
pub(super) struct Search<'a> {
    file: &'a dyn DiskFile,
    window: Window<'a>,
    generation: Generation,
    bad: u64,
    fit: Fit,
    budget: u64,
}

/// Which numbers a record must have to prove damage.
#[derive(Clone, Copy)]
struct Fit {
    mask: u64,
    /// Of the last valid record.
    last: u64,
    /// The largest possible number of records.
    most: u64,
    /// The invalid record was durable in any case.
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
    pub(super) fn new(window: Window<'a>, generation: Generation, stop: &FirstInvalid) -> Self {
        let (last, most, is_carried) = (stop.last_sequence, window.bytes, stop.is_carried);
        let fit = Fit { mask: generation.mask(), last, most, is_carried };
        let budget = window.bytes + SPARE_BUDGET;
        Self { file: window.file, window, generation, bad: stop.offset, fit, budget }
    }

    pub(super) fn finds_record(&mut self) -> io::Result<bool> {
        Ok(self.finds_in_chain()? || self.finds_anywhere()?)
    }

    /// Follows the lengths that records claim: no text between them matters if the invalid record's length is right.
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

    /// Tries every byte behind the invalid record's first.
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
                    tracing::warn!(
                        offset,
                        "a torn end of a journal has too many texts that look like records; not searching the rest for damage"
                    );
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

    /// Whether the record at an offset is valid. It is taken into memory only if its checksum is right.
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
