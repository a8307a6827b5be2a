//! Writes a new generation of a journal: the remembered keys, the records of the old one that are not in the phext's file,
//! and new records. It is complete before it gets the journal's name.

use std::io;
use std::sync::Arc;

use crate::store::disk::{Disk, DiskFile, FileName};
use crate::store::idempotency::{RememberedWrite, WriteKey};
use crate::store::journal::{self, AppendError, Base, Journal};
use crate::store::record::{Entry, Stamp, encode};
use crate::store::recovery::Tail;

const WRITE_BYTES: usize = 256 * 1024;

/// The beginning of a generation.
#[derive(Debug)]
pub(super) struct NewJournal {
    pub(super) base: Base,
    pub(super) keys: Vec<(WriteKey, RememberedWrite)>,
    pub(super) tail: Option<Tail>,
}

impl NewJournal {
    /// Writes it, with these records at the end. It is not synced yet.
    ///
    /// # Errors
    /// The system refuses: nothing of it is left.
    pub(super) fn write(&self, disk: &dyn Disk, new: &FileName, records: &mut [u8]) -> io::Result<Journal> {
        let file = disk.create(new)?;
        self.write_to(file.into(), records).inspect_err(|_| {
            // The first error is the one to report.
            let _ = disk.remove(new);
        })
    }

    fn write_to(&self, file: Arc<dyn DiskFile>, records: &mut [u8]) -> io::Result<Journal> {
        let carried = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        let mut writer = Writer { journal: Journal::create(file, &self.base, carried)?, buffer: Vec::new() };
        let (sequence, durable) = (self.base.sequence, self.base.sequence);
        for (key, write) in self.keys.iter().copied() {
            writer
                .append(&Stamp { sequence, durable, time_us: write.time_us }, &Entry::from_key(key, write))?;
        }
        if let Some(tail) = &self.tail {
            copy_tail(tail, &mut writer)?;
        }
        writer.flush()?;
        writer.journal.append(records).map_err(AppendError::into_io)?;
        Ok(writer.journal)
    }
}

/// Buffers records for few writes.
struct Writer {
    journal: Journal,
    buffer: Vec<u8>,
}

impl Writer {
    fn append(&mut self, stamp: &Stamp, entry: &Entry<'_>) -> io::Result<()> {
        encode(stamp, entry, &mut self.buffer);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.journal.append(&mut self.buffer).map_err(AppendError::into_io)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Copies the records that go over. All of them must still be valid.
fn copy_tail(tail: &Tail, writer: &mut Writer) -> io::Result<()> {
    let mut copied = Ok(());
    let replayed =
        journal::replay(&*tail.journal.file, &tail.header, tail.from, tail.journal.bytes, |record| {
            let is_carried = matches!(record.entry, Entry::Key { .. });
            if !is_carried && tail.keep.keeps(&record) && copied.is_ok() {
                copied = writer.append(&record.stamp, &record.entry);
            }
        })?;
    copied?;
    replayed.map_err(|damage| io::Error::other(damage.to_string()))
}
