//! Reads a journal's records in order, and tells where they end.

use std::io;
use std::ops::Range;

use crate::store::disk::DiskFile;
use crate::store::journal::search::Search;
use crate::store::journal::window::Window;
use crate::store::journal::{Header, JournalDamage, first_record};
use crate::store::record::{Entry, Record};

/// Where the valid records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct JournalEnd {
    /// The offset behind the last valid record.
    pub(in crate::store) bytes: u64,
    /// Bytes behind it: a write that was interrupted.
    pub(in crate::store) torn_bytes: u64,
}

/// The first invalid record, or the end.
pub(super) struct FirstInvalid {
    pub(super) offset: u64,
    /// Of the last valid record.
    pub(super) last_sequence: u64,
    /// Whether it is a carried-over key.
    pub(super) is_carried: bool,
}

/// Visits all records in order, up to the first invalid one.
///
/// An invalid record is damage when a valid one behind it says that it was durable. Otherwise it and everything behind it
/// were never acknowledged.
pub(in crate::store) fn scan(
    file: &dyn DiskFile,
    header: &Header,
    visit: impl FnMut(Record),
) -> io::Result<Result<JournalEnd, JournalDamage>> {
    let bytes = file.identity()?.bytes;
    let mut window = Window::new(file, bytes);
    let stop = read(&mut window, header, first_record()..bytes, visit)?;
    let offset = stop.offset;
    if offset < bytes && Search::new(window, header.generation, &stop).finds_record()? {
        return Ok(Err(JournalDamage::Record { offset }));
    }
    Ok(Ok(JournalEnd { bytes: offset, torn_bytes: bytes.saturating_sub(offset) }))
}

/// Visits the records between two offsets. A scan has found them valid, or this worker has appended them.
pub(in crate::store) fn replay(
    file: &dyn DiskFile,
    header: &Header,
    from: u64,
    until: u64,
    visit: impl FnMut(Record),
) -> io::Result<Result<(), JournalDamage>> {
    let stop = read(&mut Window::new(file, until), header, from..until, visit)?;
    let is_whole = stop.offset == until;
    Ok(if is_whole { Ok(()) } else { Err(JournalDamage::Record { offset: stop.offset }) })
}

fn read(
    window: &mut Window<'_>,
    header: &Header,
    range: Range<u64>,
    mut visit: impl FnMut(Record),
) -> io::Result<FirstInvalid> {
    let mut offset = range.start;
    let mut last_sequence = header.base.sequence;
    // A journal gets its name only when its carried-over keys are durable, so an invalid one is damage.
    let mut carried = if offset == first_record() { header.carried } else { 0 };
    while offset < range.end {
        match window.record_at(offset, header.generation)? {
            Some((record, length)) if follows(&record, last_sequence) => {
                last_sequence = record.stamp.sequence;
                carried = carried.saturating_sub(1);
                offset += length;
                visit(record);
            }
            _ => break,
        }
    }
    Ok(FirstInvalid { offset, last_sequence, is_carried: carried > 0 })
}

/// Whether a record may follow one with this sequence. A carried-over key has its base's.
fn follows(record: &Record, last: u64) -> bool {
    match record.entry {
        Entry::Key { .. } => record.stamp.sequence >= last,
        _ => record.stamp.sequence > last,
    }
}
