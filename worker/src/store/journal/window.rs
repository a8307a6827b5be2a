//! A part of a file in memory, which moves on as the file is read.

use std::io;

use crate::store::disk::DiskFile;
use crate::store::journal::read_full;
use crate::store::record::{
    Generation, LARGEST_BYTES, PREFIX_BYTES, Reader, Record, SMALLEST_BYTES, checksum,
};

const READ_BYTES: usize = 256 * 1024;

pub(super) struct Window<'a> {
    pub(super) file: &'a dyn DiskFile,
    /// The length of the file when it was opened. What is appended later is not read.
    pub(super) bytes: u64,
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a dyn DiskFile, bytes: u64) -> Self {
        Self { file, bytes, buffer: Vec::new(), start: 0 }
    }

    /// The valid record at an offset, and its length on disk.
    pub(super) fn record_at(
        &mut self,
        offset: u64,
        generation: Generation,
    ) -> io::Result<Option<(Record, u64)>> {
        let Some(length) = self.body_bytes(offset)? else { return Ok(None) };
        let whole = PREFIX_BYTES + length;
        let bytes = self.from(offset, whole)?.get(..whole).unwrap_or_default();
        let mut reader = Reader(bytes);
        let (Some(length), Some(crc)) = (reader.array::<4>(), reader.u32()) else { return Ok(None) };
        let is_right = checksum(generation, length, reader.0) == crc;
        let record = is_right.then(|| Record::decode(reader.0, generation)).flatten();
        Ok(record.map(|record| (record, whole as u64)))
    }

    /// The length that a record claims, if it is possible.
    pub(super) fn body_bytes(&mut self, offset: u64) -> io::Result<Option<usize>> {
        let rest = self.bytes.saturating_sub(offset);
        let Some(length) = Reader(self.from(offset, PREFIX_BYTES)?).u32() else { return Ok(None) };
        let length = length as usize;
        let fits = (SMALLEST_BYTES..=LARGEST_BYTES).contains(&(length + PREFIX_BYTES))
            && (length + PREFIX_BYTES) as u64 <= rest;
        Ok(fits.then_some(length))
    }

    /// The bytes from an offset on: at least so many, except at the end of the file.
    pub(super) fn from(&mut self, offset: u64, at_least: usize) -> io::Result<&[u8]> {
        let end = self.start + self.buffer.len() as u64;
        if offset < self.start || offset + at_least as u64 > end {
            let rest = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
            let wanted = at_least.max(READ_BYTES).min(rest);
            self.buffer.clear();
            self.buffer.shrink_to(wanted.max(READ_BYTES));
            self.buffer.resize(wanted, 0);
            let read = read_full(self.file, &mut self.buffer, offset)?;
            self.buffer.truncate(read);
            self.start = offset;
        }
        let skipped = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.buffer.get(skipped..).unwrap_or_default())
    }
}
