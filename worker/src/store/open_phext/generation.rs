//! The generations of a phext's journal: when one begins, and what goes over into it.

use std::io;
use std::sync::Arc;

use super::{Clock, JournalState, OpenPhext};
use crate::store::disk::{Disk, FileName};
use crate::store::journal::{self, AppendError, Header, Journal};
use crate::store::record::{Entry, REPEAT_BYTES, Stamp};
use crate::store::recovery::{Keep, Tail};
use crate::store::repeats::Remembered;

/// On a disk without room to spare a journal begins anew once it is longer than its keys and this: a block.
const SPENT_BYTES_WHEN_TIGHT: u64 = 4096;

impl OpenPhext {
    pub(super) fn writable_journal(
        &mut self,
        disk: &Arc<dyn Disk>,
        clock: &Clock,
    ) -> Result<&mut Journal, AppendError> {
        match &self.journal {
            JournalState::New(_) | JournalState::Current(_) => {}
            JournalState::None => self.begin_journal(disk, None, clock)?,
            JournalState::Superseded(tail) => {
                let tail = tail.clone();
                self.begin_journal(disk, Some(&tail), clock)?;
            }
        }
        match &mut self.journal {
            JournalState::New(journal) | JournalState::Current(journal) => Ok(journal),
            JournalState::None | JournalState::Superseded(_) => {
                Err(AppendError::Refused(io::Error::other("there is no journal to write to")))
            }
        }
    }

    /// Begins the journal anew that the worker before left at work, as soon as somebody waits for it.
    pub(super) fn begin_superseded(&mut self, disk: &Arc<dyn Disk>, clock: &Clock) {
        let is_wanted = !self.is_syncing && (self.is_sync_awaited() || (self.is_dirty() && !self.is_behind));
        let JournalState::Superseded(tail) = &self.journal else { return };
        let tail = tail.clone();
        if is_wanted && let Err(error) = self.begin_journal(disk, Some(&tail), clock) {
            tracing::warn!(phext = %self.name, %error, "a journal cannot begin anew");
        }
    }

    /// Begins a generation: the file that it starts from, the keys that are remembered, and of the generation
    /// before it what is not in the file. The old one stays as it is until the new one takes its name.
    pub(super) fn begin_journal(
        &mut self,
        disk: &Arc<dyn Disk>,
        tail: Option<&Tail>,
        clock: &Clock,
    ) -> Result<(), AppendError> {
        let name = FileName::NewJournal(self.name.clone());
        match self.write_journal(disk, &name, tail, clock) {
            Ok(journal) => {
                self.journal = JournalState::New(journal);
                self.logged = self.logged.max(self.last_sequence);
                Ok(())
            }
            Err(error) => {
                // It may not even exist; the error that counts is the first one.
                let _ = disk.remove(&name);
                Err(AppendError::Refused(error))
            }
        }
    }

    fn write_journal(
        &self,
        disk: &Arc<dyn Disk>,
        name: &FileName,
        tail: Option<&Tail>,
        clock: &Clock,
    ) -> io::Result<Journal> {
        let base = tail.map_or(self.base, |tail| tail.base);
        let keys: Vec<_> = self.repeats.alive(clock.time_us).collect();
        let carried = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let mut journal = Journal::create(disk.create(name)?.into(), &base, carried)?;
        let mut append = |stamp: &Stamp, entry: &Entry<'_>| {
            journal.append_buffered(stamp, entry).map_err(AppendError::into_io)
        };
        let (sequence, durable) = (base.sequence, base.sequence);
        for (key, Remembered { fingerprint, answer_bytes, time_us }) in keys {
            let entry = Entry::Repeat { key, fingerprint, answer_bytes };
            append(&Stamp { sequence, durable, time_us }, &entry)?;
        }
        if let Some(tail) = tail {
            copy_tail(tail, append)?;
        }
        journal.flush().map_err(AppendError::into_io)?;
        Ok(journal)
    }

    /// After a save: begins the journal anew when most of it is in the file. When there is no room for that it goes on.
    pub(in crate::store) fn shorten_journal(&mut self, disk: &Arc<dyn Disk>, is_tight: bool, clock: &Clock) {
        let Some(snapshot) = self.last_save.take() else { return };
        let JournalState::Current(journal) = &self.journal else { return };
        let key_bytes = REPEAT_BYTES * self.repeats.len() as u64;
        // What is written anew is at most as much again as what has been written since.
        let spent_bytes =
            if is_tight { SPENT_BYTES_WHEN_TIGHT + key_bytes } else { self.pace.spent_journal_bytes };
        let is_spent = journal.bytes > key_bytes + spent_bytes;
        if self.is_syncing || !is_spent || snapshot.generation != Some(journal.generation) {
            return;
        }
        let header = Header { generation: journal.generation, base: self.base, carried: 0 };
        let tail = Tail {
            file: Arc::clone(&journal.file),
            header,
            from: snapshot.journal_bytes,
            end: journal.bytes,
            keep: Keep::After(self.base.sequence),
            base: self.base,
        };
        if let Err(error) = self.begin_journal(disk, Some(&tail), clock) {
            tracing::warn!(phext = %self.name, %error, "a journal cannot begin anew, and goes on");
        }
    }
}

/// Hands the records of an old journal that go over to `append`. All of them must still be there.
fn copy_tail(tail: &Tail, mut append: impl FnMut(&Stamp, &Entry<'_>) -> io::Result<()>) -> io::Result<()> {
    let mut copied = Ok(());
    let scanned = journal::scan(&*tail.file, &tail.header, tail.from, |record| {
        let is_carried = matches!(record.entry, Entry::Repeat { .. });
        if !is_carried && tail.keep.keeps(&record) && copied.is_ok() {
            copied = append(&record.stamp, &record.entry);
        }
    })?;
    copied?;
    match scanned {
        Ok(end) if end.bytes == tail.end => Ok(()),
        Ok(_) => Err(io::Error::other("the end of the old journal cannot be read any more")),
        Err(damage) => Err(io::Error::other(damage.to_string())),
    }
}
