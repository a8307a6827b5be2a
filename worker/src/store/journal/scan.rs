//! Reads a journal's records in order, and tells where they end.

use std::io;
use std::ops::Range;

use crate::store::disk::DiskFile;
use crate::store::journal::search::Search;
use crate::store::journal::window::Window;
use crate::store::journal::{Header, JournalDamage, first_record};
use crate::store::record::{Entry, Record};

/// Where the good records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct End {
    /// The offset behind the last good record.
    pub(in crate::store) bytes: u64,
    /// Bytes behind it that are no record: a write that was under way.
    pub(in crate::store) torn_bytes: u64,
}

/// The first record that is not good, or the end of them all.
pub(super) struct Stop {
    pub(super) offset: u64,
    /// The last good record's.
    pub(super) last_sequence: u64,
    /// Whether it is one of those that were there before the journal had its name.
    pub(super) is_carried: bool,
}

/// Hands all records on to `visit`, in order. Stops at the first that is not whole.
///
/// A bad record is damage when a good one behind it says that it had been durable. Otherwise it, and whatever
/// follows, is a write that was never acknowledged.
pub(in crate::store) fn scan(
    file: &dyn DiskFile,
    header: &Header,
    visit: impl FnMut(Record),
) -> io::Result<Result<End, JournalDamage>> {
    let bytes = file.identity()?.bytes;
    let mut window = Window::new(file, bytes);
    let stop = read(&mut window, header, first_record()..bytes, visit)?;
    let offset = stop.offset;
    if offset < bytes && Search::new(window, header.generation, &stop).finds_record()? {
        return Ok(Err(JournalDamage::Record { offset }));
    }
    Ok(Ok(End { bytes: offset, torn_bytes: bytes.saturating_sub(offset) }))
}

/// Hands on the records between two offsets, which a scan found good, or this journal has appended since.
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
) -> io::Result<Stop> {
    let mut offset = range.start;
    let mut last_sequence = header.base.sequence;
    // A journal gets its name when it is durable with the keys that are carried over: a bad one is damage.
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
    Ok(Stop { offset, last_sequence, is_carried: carried > 0 })
}

/// Whether a record may stand behind one of this sequence: a carried-over key has its base's.
fn follows(record: &Record, last: u64) -> bool {
    match record.entry {
        Entry::Key { .. } => record.stamp.sequence >= last,
        _ => record.stamp.sequence > last,
    }
}
