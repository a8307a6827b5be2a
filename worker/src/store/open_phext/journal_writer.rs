//! The journal of a phext in memory: records are queued for it, one job at a time appends and syncs them, and it is
//! compacted when most of it has been saved. What arrives during a job is queued and shares the next one.

use std::io;

use super::durability::Snapshot;
use super::retiring::Retirement;
use super::save::Step;
use super::{Clock, OpenPhext};
use crate::store::idempotency::WriteKey;
use crate::store::job::{Note, Work};
use crate::store::journal::{Base, Header, Journal};
use crate::store::new_journal::NewJournal;
use crate::store::queue::{Queue, Refusal, SharedRefusal};
use crate::store::record::{Entry, Generation, KEY_RECORD_BYTES, Stamp};
use crate::store::recovery::{Keep, Tail};

/// On a nearly full disk a journal is compacted once it is longer than its keys and this: a block.
const COMPACT_BYTES_WHEN_TIGHT: u64 = 4096;

/// A phext's journal, and what is queued for it.
///
/// Invariants: records are in the journal, in flight or in the queue, in the order of their sequence. While a job has the
/// journal (`in_flight`), no other job touches it.
#[derive(Debug, Default)]
pub(super) struct JournalWriter {
    pub(super) state: JournalState,
    /// Records that wait for the next job.
    pub(super) queue: Queue,
    /// What the present job appends.
    in_flight: Option<InFlight>,
    /// The keys of records that the journal does not have yet: those in flight, then those in the queue.
    pub(super) unwritten_keys: Vec<WriteKey>,
    /// Up to here, in this generation, only keys are needed: the file has the rest. `None` once compaction was considered.
    pub(super) saved_end: Option<(Generation, u64)>,
    /// Set when it is unknown whether what an earlier worker left is on disk.
    pub(super) unconfirmed: SharedRefusal,
}

/// How records get into a journal.
#[derive(Debug, Default)]
pub(in crate::store) enum JournalState {
    /// There is none. The first record begins one.
    #[default]
    None,
    /// They are appended.
    Current(Journal),
    /// Its records up to `offset` are in the file. The next generation begins with those behind it.
    Compacting { journal: Journal, offset: u64 },
    /// Nothing is appended: its format is old, or the file is another program's, or the last worker did not end cleanly. What
    /// that worker wrote last may be in the page cache alone even after a sync, because after a sync that failed, the next
    /// one has nothing to do. Only a new file is sure, so the next generation begins with these records.
    Stale {
        tail: Tail,
        /// The last attempt to begin a new generation failed.
        is_stuck: bool,
    },
}

/// What a job appends to the journal.
#[derive(Debug)]
struct InFlight {
    /// Without the records, which the job has.
    queue: Queue,
    record_bytes: u64,
    /// The last record that is in the journal when the job is done.
    upto: u64,
    /// How many of the `unwritten_keys` are among them.
    key_count: usize,
    /// The phext with these records.
    snapshot: Snapshot,
}

impl JournalWriter {
    pub(super) fn push(&mut self, stamp: &Stamp, entry: &Entry<'_>, frees_space: bool) {
        self.queue.push(stamp, entry, frees_space);
        // The disk may have space for a new generation again.
        if let JournalState::Stale { is_stuck, .. } = &mut self.state {
            *is_stuck = false;
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The bytes of records that the disk does not have yet.
    pub(super) fn queued_bytes(&self) -> u64 {
        self.queue.records.len() as u64
            + self.in_flight.as_ref().map_or(0, |in_flight| in_flight.record_bytes)
    }

    /// Where the refusal of the last record is reported.
    pub(super) fn last_refusal(&self) -> &SharedRefusal {
        let in_flight = || self.in_flight.as_ref()?.queue.refusal();
        self.queue.refusal().or_else(in_flight).unwrap_or(&self.unconfirmed)
    }

    /// A job returns the journal that was lent to it, with its note if that could be written.
    pub(super) fn take_back(&mut self, noted: Option<Journal>) {
        self.in_flight = None;
        if let Some(journal) = noted {
            self.state = JournalState::Current(journal);
        }
    }

    /// The records of the present generation that go over into the next one.
    fn tail(&self, base: Base) -> Option<Tail> {
        match &self.state {
            JournalState::None | JournalState::Current(_) => None,
            JournalState::Stale { tail, .. } => Some(tail.clone()),
            JournalState::Compacting { journal, offset } => Some(Tail {
                journal: journal.clone(),
                header: Header { generation: journal.generation, base, carried: 0 },
                from: *offset,
                keep: Keep::After(base.sequence),
                base,
            }),
        }
    }

    /// The journal, whether or not records can be appended to it.
    fn journal(&self) -> Option<&Journal> {
        match &self.state {
            JournalState::None => None,
            JournalState::Current(journal) | JournalState::Compacting { journal, .. } => Some(journal),
            JournalState::Stale { tail, .. } => Some(&tail.journal),
        }
    }

    /// The journal, if it has this generation and length.
    pub(super) fn found(&self, generation: Generation, bytes: u64) -> Option<Journal> {
        let is_same = |journal: &&Journal| journal.generation == generation && journal.bytes == bytes;
        self.journal().filter(is_same).cloned()
    }

    /// The journal, if records can be appended to it.
    pub(super) fn current(&self) -> Option<&Journal> {
        match &self.state {
            JournalState::Current(journal) => Some(journal),
            JournalState::None | JournalState::Compacting { .. } | JournalState::Stale { .. } => None,
        }
    }

    pub(super) fn is_none(&self) -> bool {
        self.journal().is_none()
    }

    /// No edit in the journal counts any more, so a new generation must begin before the next one.
    pub(super) fn drop_edits(&mut self, base: Base) {
        let Some(journal) = self.journal().cloned() else { return };
        let header = Header { generation: journal.generation, base, carried: 0 };
        let tail = Tail { header, from: journal.bytes, journal, keep: Keep::Nothing, base };
        self.state = JournalState::Stale { tail, is_stuck: false };
    }

    pub(super) fn bytes(&self) -> u64 {
        self.journal().map_or(0, |journal| journal.bytes)
    }

    /// Whether the journal may be removed, as far as one can tell.
    pub(super) fn is_writable(&self) -> bool {
        self.journal().is_some_and(|journal| journal.file.is_writable())
    }

    /// The generation, and the offset at which the next queued record will stand; `None` while that is unknown.
    pub(super) fn end(&self) -> Option<(Generation, u64)> {
        let journal = self.current()?;
        Some((journal.generation, journal.bytes + self.queued_bytes()))
    }
}

impl OpenPhext {
    /// The next job for the journal.
    pub(super) fn next_journal_work(&mut self, clock: &Clock) -> Option<Work> {
        if self.journal.is_busy() || self.is_retiring() {
            return None;
        }
        let is_awaited = self.is_sync_awaited();
        match &self.journal.state {
            JournalState::None | JournalState::Stale { is_stuck: false, .. } => {
                is_awaited.then(|| self.begin_journal(clock))
            }
            JournalState::Stale { tail, is_stuck: true } => {
                // There was no space for a new one. Reads go on all the same: the old one has everything.
                let journal = tail.journal.clone();
                is_awaited.then(|| {
                    self.take_queue();
                    Work::Rewrite { journal }
                })
            }
            JournalState::Compacting { .. } => Some(self.begin_journal(clock)),
            JournalState::Current(journal) => {
                let (journal, frees_space) = (journal.clone(), self.journal.queue.frees_space);
                is_awaited.then(|| Work::Append { journal, records: self.take_queue(), frees_space })
            }
        }
    }

    fn begin_journal(&mut self, clock: &Clock) -> Work {
        // A new journal is short.
        self.retirement = Retirement::Unwanted;
        let base = self.durability.base;
        let tail = self.journal.tail(base);
        // The queued records bring their own keys.
        let is_written = |key: &WriteKey| !self.journal.unwritten_keys.contains(key);
        let new = NewJournal {
            base: tail.as_ref().map_or(base, |tail| tail.base),
            keys: self.keys.alive(clock.now).filter(|(key, _)| is_written(key)).collect(),
            tail,
        };
        let frees_space = self.journal.queue.frees_space;
        Work::BeginJournal { new: Box::new(new), records: self.take_queue(), frees_space }
    }

    fn take_queue(&mut self) -> Vec<u8> {
        let mut queue = std::mem::take(&mut self.journal.queue);
        let records = std::mem::take(&mut queue.records);
        self.journal.in_flight = Some(InFlight {
            queue,
            record_bytes: records.len() as u64,
            upto: self.durability.last_sequence,
            key_count: self.journal.unwritten_keys.len(),
            snapshot: self.durability.latest.clone(),
        });
        records
    }

    /// Lends the journal to the job that publishes a save, with the record that says so. A journal that has other work is
    /// not lent: then there is more to save, and that save has its own record.
    pub(super) fn lend_journal(&mut self, entry: &Entry<'_>, clock: &Clock) -> Option<Note> {
        let journal = self.journal.current()?.clone();
        if self.journal.is_busy() || !self.journal.queue.is_empty() {
            return None;
        }
        self.enqueue(entry, false, clock);
        Some(Note { journal, record: self.take_queue() })
    }

    /// Whether a request waits for records of the journal.
    fn is_sync_awaited(&self) -> bool {
        match &self.save.step {
            Step::Announcing { record, .. } => !self.durability.has_synced(*record),
            _ => !self.awaits_save() && !self.durability.is_synced(),
        }
    }

    /// Whether the answers wait for a save, whose own record makes the edits durable along with itself.
    fn awaits_save(&self) -> bool {
        let is_saved = !self.wants_no_file() || self.is_saving();
        self.answers_wait_for_save() && self.is_dirty() && is_saved && !self.must_reload
    }

    /// The journal has the records of the last job, and is durable.
    pub(super) fn note_appended(&mut self, journal: Journal) {
        self.journal.state = JournalState::Current(journal);
        self.note_synced();
    }

    pub(super) fn note_synced(&mut self) {
        if let Some(InFlight { upto, key_count, snapshot, .. }) = self.journal.in_flight.take() {
            self.journal.unwritten_keys.drain(..key_count.min(self.journal.unwritten_keys.len()));
            self.durability.note_synced(upto, snapshot);
        }
    }

    /// The disk did not take these records. The journal is as it was before the job.
    pub(super) fn note_refused(&mut self, records: Vec<u8>, error: &io::Error, clock: &Clock) {
        let Some(InFlight { mut queue, .. }) = self.journal.in_flight.take() else { return };
        queue.records = records;
        match std::mem::take(&mut self.journal.state) {
            JournalState::Compacting { journal, .. } => {
                tracing::warn!(phext = %self.name, %error, "failed to compact a journal; appending to the old one");
                self.journal.state = JournalState::Current(journal);
                self.journal.queue.put_back(queue);
            }
            JournalState::Stale { tail, .. } => {
                tracing::warn!(phext = %self.name, %error, "failed to begin a new journal");
                self.journal.state = JournalState::Stale { tail, is_stuck: true };
                self.refuse(queue, error, clock);
                if self.wants_no_file() && self.is_dirty() {
                    // No save follows that would report the failure.
                    self.note_save_failed(error, clock);
                }
            }
            state => {
                self.journal.state = state;
                self.refuse(queue, error, clock);
            }
        }
    }

    /// Drops these records and all that are queued behind them: the phext is what its journal has. No job has the journal.
    pub(super) fn refuse(&mut self, mut older: Queue, error: &io::Error, clock: &Clock) {
        if older.is_empty() && self.journal.queue.is_empty() {
            return;
        }
        tracing::error!(phext = %self.name, %error, "failed to write to the journal; the writes are refused");
        let refusal = Refusal::from(error);
        older.refuse(refusal);
        self.journal.queue.refuse(refusal);
        for key in self.journal.unwritten_keys.drain(..) {
            self.keys.remove(&key);
        }
        self.durability.roll_back();
        self.refuse_save(error, clock);
        // The next read of its files reports what is in the way.
        self.must_reload |= refusal == Refusal::Blocked;
    }

    /// Records without edits change no file, so no save makes them obsolete.
    pub(super) fn note_only_keys(&mut self) {
        if let Some(journal) = self.journal.current()
            && !self.is_dirty()
            && !self.is_saving()
        {
            self.journal.saved_end = Some((journal.generation, journal.bytes));
        }
    }

    /// Whether the journal may have become longer than it need be.
    pub(in crate::store) fn may_compact(&self) -> bool {
        self.journal.saved_end.is_some()
    }

    /// Compacts the journal when most of it is in the file.
    pub(in crate::store) fn compact_journal(&mut self, is_tight: bool) {
        let JournalState::Current(journal) = &self.journal.state else { return };
        if self.journal.is_busy() || self.is_retiring() {
            return;
        }
        let Some((generation, offset)) = self.journal.saved_end.take() else { return };
        let key_bytes = KEY_RECORD_BYTES * self.keys.len() as u64;
        // While writes go on it is compacted early; otherwise it may be removed as a whole.
        let is_tight = is_tight || self.retirement == Retirement::Wanted && self.is_dirty();
        // So compaction writes no more than was written since the last one.
        let obsolete_bytes =
            if is_tight { COMPACT_BYTES_WHEN_TIGHT + key_bytes } else { self.tuning.compact_journal_bytes };
        if generation == journal.generation && journal.bytes > key_bytes + obsolete_bytes {
            self.journal.state = JournalState::Compacting { journal: journal.clone(), offset };
        }
    }

    /// Whether a compaction is about to give the space of the old journal back.
    pub(in crate::store) fn is_compacting(&self) -> bool {
        matches!(self.journal.state, JournalState::Compacting { .. })
    }

    /// Whether its journal could only be opened for reading.
    pub(in crate::store) fn has_unwritable_journal(&self) -> bool {
        self.journal.current().is_some_and(|journal| !journal.file.is_writable())
    }

    pub(super) fn is_journal_long(&self) -> bool {
        let limit = self.tuning.long_journal_bytes + self.phext().file_bytes() / 2;
        self.journal.end().is_some_and(|(_, end)| end > limit)
    }
}
