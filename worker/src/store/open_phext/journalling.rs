//! A phext's journal: records go into it, it is synced while requests wait for that, and it begins again when most of it
//! has been saved. One job at a time: what comes meanwhile is queued, and shares the next one.

use std::io;
use std::sync::Arc;

use super::{Clock, JournalState, OpenPhext, Point};
use crate::store::job::{Note, Work};
use crate::store::journal::{Header, Journal};
use crate::store::new_journal::NewJournal;
use crate::store::open_phext::retiring::RetireState;
use crate::store::open_phext::saving::Save;
use crate::store::queue::{Queue, Refusal};
use crate::store::record::{Entry, Generation, REPEAT_BYTES};
use crate::store::recovery::{Keep, Tail};
use crate::store::repeats::RepeatKey;

/// On a disk without room to spare a journal begins again once it is longer than its keys and this: a block.
const SPENT_BYTES_WHEN_TIGHT: u64 = 4096;

/// The journal's job that is under way.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Its records, which the job itself has.
    pub(super) queue: Queue,
    pub(super) record_bytes: u64,
    /// The last record that is in the journal when it is done.
    upto: u64,
    /// How many of the keys in `unwritten_keys` are.
    key_count: usize,
    /// What the phext is with these records.
    point: Point,
}

impl OpenPhext {
    /// What the journal needs now.
    pub(super) fn next_journal_work(&mut self, clock: &Clock) -> Option<Work> {
        if self.in_flight.is_some() || self.is_retiring() {
            return None;
        }
        let is_awaited = self.is_sync_awaited();
        match &self.journal {
            JournalState::None | JournalState::Superseded { is_stuck: false, .. } => {
                is_awaited.then(|| self.begin(clock))
            }
            JournalState::Superseded { tail, is_stuck: true } => {
                // There was no room for a new one. Reads go on all the same: the old one has everything.
                let (journal, bytes) = (Arc::clone(&tail.file), tail.end);
                is_awaited.then(|| {
                    self.take_off();
                    Work::Refresh { journal, bytes }
                })
            }
            JournalState::Spent { .. } => Some(self.begin(clock)),
            JournalState::Current(journal) => {
                let (journal, frees_room) = (journal.clone(), self.queue.frees_room);
                is_awaited.then(|| Work::Append { journal, records: self.take_off(), frees_room })
            }
        }
    }

    fn begin(&mut self, clock: &Clock) -> Work {
        // A new journal is short.
        self.retirement = RetireState::Unwanted;
        let tail = self.tail();
        // Those of the queued records come with these.
        let is_written = |key: &RepeatKey| !self.unwritten_keys.contains(key);
        let new = NewJournal {
            base: tail.as_ref().map_or(self.base, |tail| tail.base),
            keys: self.repeats.alive(clock.now).filter(|(key, _)| is_written(key)).collect(),
            tail,
        };
        let frees_room = self.queue.frees_room;
        Work::Begin { new: Box::new(new), records: self.take_off(), frees_room }
    }

    /// Which records of the old journal go over into a new one.
    fn tail(&self) -> Option<Tail> {
        match &self.journal {
            JournalState::None | JournalState::Current(_) => None,
            JournalState::Superseded { tail, .. } => Some(tail.clone()),
            JournalState::Spent { journal, offset } => {
                let header = Header { generation: journal.generation, base: self.base, carried: 0 };
                Some(Tail {
                    file: Arc::clone(&journal.file),
                    header,
                    from: *offset,
                    end: journal.bytes,
                    keep: Keep::After(self.base.sequence),
                    base: self.base,
                })
            }
        }
    }

    /// Lends the journal to the job that publishes a save, with the record that says so. While the journal has other work
    /// it is not lent: then more is to be saved, and that save has a record of its own.
    pub(super) fn lend_journal(&mut self, entry: &Entry<'_>, clock: &Clock) -> Option<Note> {
        let JournalState::Current(journal) = &self.journal else { return None };
        if self.in_flight.is_some() || !self.queue.is_empty() {
            return None;
        }
        let journal = journal.clone();
        self.enqueue(entry, false, clock);
        Some(Note { journal, record: self.take_off() })
    }

    /// Hands the queued records over to a job.
    fn take_off(&mut self) -> Vec<u8> {
        let mut queue = std::mem::take(&mut self.queue);
        let records = std::mem::take(&mut queue.records);
        self.in_flight = Some(InFlight {
            queue,
            record_bytes: records.len() as u64,
            upto: self.last_sequence,
            key_count: self.unwritten_keys.len(),
            point: self.now(),
        });
        records
    }

    /// Whether a request waits for records of the journal.
    fn is_sync_awaited(&self) -> bool {
        match &self.save {
            Save::Written { record, .. } => self.synced < *record,
            _ => !self.awaits_save() && self.synced < self.logged,
        }
    }

    /// Whether the answers wait for a save anyway, whose own record makes the edits durable with itself.
    fn awaits_save(&self) -> bool {
        let is_noted = matches!(self.save, Save::Written { .. });
        let is_saved = !self.is_to_go() || self.is_saving();
        self.is_saved_at_once() && self.is_dirty() && is_saved && !self.is_superseded && !is_noted
    }

    pub(super) fn note_appended(&mut self, journal: Journal) {
        let Some(in_flight) = self.in_flight.take() else { return };
        self.journal = JournalState::Current(journal);
        self.note_in_journal(in_flight);
    }

    pub(super) fn note_refreshed(&mut self) {
        let Some(in_flight) = self.in_flight.take() else { return };
        self.note_in_journal(in_flight);
    }

    fn note_in_journal(&mut self, in_flight: InFlight) {
        self.synced = self.synced.max(in_flight.upto);
        self.unwritten_keys.drain(..in_flight.key_count.min(self.unwritten_keys.len()));
        self.written = in_flight.point;
    }

    /// The journal is as it was before the job.
    pub(super) fn note_refused(&mut self, records: Vec<u8>, error: &io::Error, clock: &Clock) {
        let Some(in_flight) = self.in_flight.take() else { return };
        let queue = Queue { records, ..in_flight.queue };
        match std::mem::replace(&mut self.journal, JournalState::None) {
            JournalState::Spent { journal, .. } => {
                tracing::warn!(phext = %self.name, %error, "failed to begin a new journal; the old one goes on");
                self.journal = JournalState::Current(journal);
                self.queue.put_back(queue);
            }
            JournalState::Superseded { tail, .. } => {
                tracing::warn!(phext = %self.name, %error, "failed to begin a new journal");
                self.journal = JournalState::Superseded { tail, is_stuck: true };
                self.refuse(queue, error, clock);
                if self.is_to_go() && self.is_dirty() {
                    // No save follows that would say so.
                    self.fall_behind(error, clock);
                }
            }
            journal => {
                self.journal = journal;
                self.refuse(queue, error, clock);
            }
        }
    }

    /// Gives up these records and all that are queued behind them: the phext is what its journal has. No job of the journal
    /// is under way.
    pub(super) fn refuse(&mut self, mut older: Queue, error: &io::Error, clock: &Clock) {
        if older.is_empty() && self.queue.is_empty() {
            return;
        }
        tracing::error!(phext = %self.name, %error, "failed to write to the journal; the writes are refused");
        let refusal = Refusal::from(error);
        older.refuse(refusal);
        self.queue.refuse(refusal);
        for key in self.unwritten_keys.drain(..) {
            self.repeats.remove(&key);
        }
        let Point { phext, logged, edit } = self.written.clone();
        (self.phext, self.logged, self.last_edit) = (phext, logged, edit);
        self.refuse_save(error, clock);
        // The next look at its files says what is in the way.
        self.is_superseded |= refusal == Refusal::Blocked;
    }

    /// Records without edits change no file, so no save will end them.
    pub(super) fn note_only_keys(&mut self) {
        if let JournalState::Current(journal) = &self.journal
            && !self.is_dirty()
            && !self.is_saving()
        {
            self.spent = Some((journal.generation, journal.bytes));
        }
    }

    /// Whether the journal may be longer than it need be.
    pub(in crate::store) fn may_be_spent(&self) -> bool {
        self.spent.is_some()
    }

    /// Lets the journal begin again when most of it is in the file.
    pub(in crate::store) fn shorten_journal(&mut self, is_tight: bool) {
        let JournalState::Current(journal) = &self.journal else { return };
        if self.in_flight.is_some() || self.is_retiring() {
            return;
        }
        let Some((generation, offset)) = self.spent.take() else { return };
        let key_bytes = REPEAT_BYTES * self.repeats.len() as u64;
        // Writes go on, or else all of it may go.
        let is_tight = is_tight || self.retirement == RetireState::Wanted && self.is_dirty();
        // What is written again is at most as much again as what has been written since.
        let spent_bytes =
            if is_tight { SPENT_BYTES_WHEN_TIGHT + key_bytes } else { self.pace.spent_journal_bytes };
        if generation == journal.generation && journal.bytes > key_bytes + spent_bytes {
            self.journal = JournalState::Spent { journal: journal.clone(), offset };
        }
    }

    pub(super) fn is_journal_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether a new journal is about to give the room of the old one back.
    pub(in crate::store) fn is_shortening(&self) -> bool {
        matches!(self.journal, JournalState::Spent { .. })
    }

    /// Whether its journal could only be opened for reading.
    pub(in crate::store) fn has_unwritable_journal(&self) -> bool {
        matches!(&self.journal, JournalState::Current(journal) if !journal.file.is_writable())
    }

    /// Whether its journal may be removed, as far as one can tell.
    pub(super) fn has_writable_journal(&self) -> bool {
        match &self.journal {
            JournalState::None => false,
            JournalState::Current(journal) | JournalState::Spent { journal, .. } => {
                journal.file.is_writable()
            }
            JournalState::Superseded { tail, .. } => tail.file.is_writable(),
        }
    }

    /// Where in which generation the next queued record will stand; `None` when that is not known yet.
    pub(super) fn journal_end(&self) -> Option<(Generation, u64)> {
        match &self.journal {
            JournalState::Current(journal) => Some((journal.generation, journal.bytes + self.queued_bytes())),
            JournalState::None | JournalState::Spent { .. } | JournalState::Superseded { .. } => None,
        }
    }

    pub(super) fn is_journal_long(&self) -> bool {
        let limit = self.pace.long_journal_bytes + self.phext.file_bytes() / 2;
        matches!(&self.journal, JournalState::Current(journal) if journal.bytes + self.queued_bytes() > limit)
    }
}
