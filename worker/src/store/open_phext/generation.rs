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
        let mut journal = Journal::create(disk.create(name)?.into(), &base)?;
        let mut append = |stamp: &Stamp, entry: &Entry<'_>| {
            journal
                .append(stamp, entry)
                .map_err(|(AppendError::Refused(error) | AppendError::Torn(error))| error)
        };
        let (sequence, durable) = (base.sequence, base.sequence);
        for (key, Remembered { fingerprint, answer_bytes, time_us }) in self.repeats.alive(clock.time_us) {
            let entry = Entry::Repeat { key, fingerprint, answer_bytes };
            append(&Stamp { sequence, durable, time_us }, &entry)?;
        }
        if let Some(tail) = tail {
            let mut copied = Ok(());
            let scanned = journal::scan(&*tail.file, &tail.header, tail.from, |record| {
                let is_carried = matches!(record.entry, Entry::Repeat { .. });
                if !is_carried && tail.keep.keeps(&record) && copied.is_ok() {
                    copied = append(&record.stamp, &record.entry);
                }
            })?;
            scanned.map_err(|damage| io::Error::other(damage.to_string()))?;
            copied?;
        }
        Ok(journal)
    }

    /// After a save: begins the journal anew when most of it is in the file. When there is no room for that it goes on.
    pub(in crate::store) fn shorten_journal(&mut self, disk: &Arc<dyn Disk>, is_tight: bool, clock: &Clock) {
        let Some(snapshot) = self.last_save.take() else { return };
        let JournalState::Current(journal) = &self.journal else { return };
        let spent_bytes = if is_tight { SPENT_BYTES_WHEN_TIGHT } else { self.pace.spent_journal_bytes };
        let is_spent = journal.bytes > spent_bytes + REPEAT_BYTES * self.repeats.len() as u64;
        if self.is_syncing || !is_spent || snapshot.generation != Some(journal.generation) {
            return;
        }
        let header = Header { generation: journal.generation, base: self.base };
        let tail = Tail {
            file: Arc::clone(&journal.file),
            header,
            from: snapshot.journal_bytes,
            keep: Keep::After(self.base.sequence),
            base: self.base,
        };
        if let Err(error) = self.begin_journal(disk, Some(&tail), clock) {
            tracing::warn!(phext = %self.name, %error, "a journal cannot begin anew, and goes on");
        }
    }
}
