//! A phext in memory, and the work that brings its files up to date.
//!
//! Two things go on side by side. Records are appended to the journal and synced, so that writes can be acknowledged
//! (`journal_writer.rs`); now and then a save brings the phext's file up to date (`save.rs`). `durability.rs` knows which
//! writes have come how far. What to do next is decided from values alone, in [`OpenPhext::next_work`].

use std::time::{Duration, Instant};

use sq_shared::phext_name::PhextName;

use crate::store::disk::Identity;
use crate::store::freshness::StatStamp;
use crate::store::idempotency::{KEYS_PER_PHEXT, RememberedKeys, WriteKey};
use crate::store::job::{Outcome, RefusedRecords, Work};
use crate::store::pending::{CommitPoint, Pending};
use crate::store::phext::Phext;
use crate::store::queue::{Refusal, SharedRefusal};
use crate::store::record::Entry;
use crate::store::recovery::Recovered;

use self::durability::{Durability, Position, Snapshot};
use self::journal_writer::JournalWriter;
use self::retiring::Retirement;
use self::save::{Save, Schedule};

pub(super) mod durability;
pub(super) mod evicted;
pub(super) mod journal_writer;
pub(super) mod retiring;
mod save;

/// When files are brought up to date, and how long they may become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    /// A phext up to this size is saved before a write is answered: people look at the file right after the request.
    pub(super) save_before_answer_bytes: u64,
    /// How long after the last write a larger one is saved.
    pub(super) save_delay: Duration,
    /// How long after a failed save it is tried again.
    pub(super) save_retry_delay: Duration,
    /// A journal that has grown by this, and by half of its phext's size, does not wait for a pause in the writes. So all
    /// saves together write at most about twice what the writes did.
    pub(super) long_journal_bytes: u64,
    /// A journal whose edits are all saved is compacted once it is longer than its keys and this.
    pub(super) compact_journal_bytes: u64,
    /// What all journals of the tenant may take beside what is left of the quota.
    pub(super) journals_bytes: u64,
}

impl Tuning {
    pub(super) const DEFAULT: Self = Self {
        save_before_answer_bytes: 1024 * 1024,
        save_delay: Duration::from_millis(300),
        save_retry_delay: Duration::from_secs(1),
        long_journal_bytes: 8 * 1024 * 1024,
        compact_journal_bytes: 256 * 1024,
        journals_bytes: 16 * 1024 * 1024,
    };
}

/// A phext in memory.
#[derive(Debug)]
pub(super) struct OpenPhext {
    name: PhextName,
    /// Which load of the phext this is.
    pub(super) load_id: u64,
    tuning: Tuning,
    durability: Durability,
    journal: JournalWriter,
    save: Save,
    retirement: Retirement,
    pub(super) keys: RememberedKeys,
    /// The phext's file when the store last read or wrote it.
    pub(super) file: Option<Identity>,
    /// When the file was last compared with that.
    pub(super) stat_stamp: Option<StatStamp>,
    /// It must be read again once it is idle: another program has changed the file, or the journal could not be written.
    pub(super) must_reload: bool,
}

impl OpenPhext {
    /// A phext that has neither a file nor a journal.
    pub(super) fn new(name: PhextName, tuning: Tuning) -> Self {
        Self {
            name,
            load_id: 0,
            tuning,
            durability: Durability::new(),
            journal: JournalWriter::default(),
            save: Save::default(),
            retirement: Retirement::default(),
            keys: RememberedKeys::new(KEYS_PER_PHEXT),
            file: None,
            stat_stamp: None,
            must_reload: false,
        }
    }

    /// A phext as the disk has it. What its file does not have is due to be saved.
    pub(super) fn from_recovered(
        name: PhextName,
        tuning: Tuning,
        recovered: Recovered,
        now: Instant,
    ) -> Self {
        let Recovered { phext, position, last_sequence, synced, base, .. } = recovered;
        let durability = Durability::recovered(Snapshot { phext, position }, last_sequence, synced, base);
        let mut open =
            Self { durability, keys: recovered.keys, file: recovered.file, ..Self::new(name, tuning) };
        open.journal.state = recovered.journal;
        if open.is_dirty() {
            open.save.schedule = Schedule::Due(now);
        }
        open.advance_durable();
        open
    }

    /// With every write, durable or not.
    pub(super) fn phext(&self) -> &Phext {
        &self.durability.latest.phext
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        const OVERHEAD_BYTES: u64 = 1024;
        OVERHEAD_BYTES + self.phext().memory_bytes() + self.keys.memory_bytes() + self.queued_bytes()
    }

    pub(super) fn queued_bytes(&self) -> u64 {
        self.journal.queued_bytes()
    }

    /// Whether there are edits that its file does not have.
    pub(super) fn is_dirty(&self) -> bool {
        self.durability.is_dirty()
    }

    /// Whether no job is under way and its journal is durable, so that it may be read again from the disk.
    pub(super) fn is_idle(&self) -> bool {
        let has_job = self.journal.is_busy() || self.is_saving() || self.is_retiring();
        !has_job && self.journal.queue.is_empty() && self.durability.is_synced()
    }

    /// Whether nothing would be lost or left behind without it: its file has every edit, and no file of it can be removed.
    pub(super) fn is_evictable(&self) -> bool {
        self.is_idle() && !self.is_dirty() && (self.has_save_failed() || !self.wants_to_retire())
    }

    /// Whether no work is left for it, not even later.
    pub(super) fn is_done(&self) -> bool {
        self.is_idle() && !self.is_dirty() && !self.wants_to_retire()
    }

    /// Whether its files cannot be brought up to date now: the journal keeps what they lack.
    pub(super) fn is_stuck(&self) -> bool {
        let is_unremovable = self.wants_no_file() && !self.journal.is_writable();
        self.is_idle() && (self.has_save_failed() || self.must_reload || is_unremovable)
    }

    /// Whether this is its file: the one that it was read from or saved to, or the one that a job is giving the name; or
    /// none, when a job is removing it.
    pub(super) fn is_own_file(&self, found: Option<Identity>) -> bool {
        match found {
            _ if found == self.file => true,
            Some(found) => self.is_being_published(&found),
            None => self.is_retiring() && self.durability.appended.phext.file_bytes() == 0,
        }
    }

    /// When it is to be saved, or the removal of its files to be tried again.
    pub(super) fn save_due(&self) -> Option<Instant> {
        let is_retry = self.has_save_failed() && self.wants_to_retire() && !self.is_retiring();
        self.save.schedule.at().filter(|_| (self.needs_save() || is_retry) && !self.is_saving())
    }

    /// Is saved as soon as possible: its memory is needed, or the space of its journal.
    pub(super) fn save_soon(&mut self, now: Instant) {
        if !self.has_save_failed() {
            self.save.schedule = self.save.schedule.moved_to(now);
        }
    }

    /// Tries a failed save again now: there is no later.
    pub(super) fn retry_save(&mut self, now: Instant) {
        if self.has_save_failed() {
            self.save.schedule = Schedule::None;
        }
        self.save_soon(now);
    }

    /// What must be durable before its latest state is answered; `None` when it is.
    pub(super) fn commit_point(&self) -> Option<CommitPoint> {
        let position = self.durability.latest.position;
        self.commit_point_at(position, self.journal.last_refusal())
    }

    /// What must be durable before it is answered that the write of a key was made; `None` when it is.
    pub(super) fn commit_point_of_key(&self, key: &WriteKey) -> Option<CommitPoint> {
        if self.journal.unwritten_keys.contains(key) {
            return self.commit_point();
        }
        self.commit_point_at(self.durability.appended.position, &self.journal.unconfirmed)
    }

    fn commit_point_at(&self, position: Position, refusal: &SharedRefusal) -> Option<CommitPoint> {
        (!self.is_durable(position)).then(|| CommitPoint {
            name: self.name.clone(),
            load_id: self.load_id,
            position,
            refusal: refusal.clone(),
        })
    }

    /// Whether what an earlier worker left may be in memory alone. It is read, because all that was acknowledged is in it;
    /// but nothing that rests on it is acknowledged.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.journal.unconfirmed.get().is_some()
    }

    /// The phext as it was last durable. Only after a worker that ended in the middle of its work there is no such state
    /// yet.
    pub(super) fn durable_phext(&self) -> Pending<&Phext> {
        if let Some(Snapshot { phext, .. }) = &self.durability.durable {
            return Pending::durable(phext);
        }
        let Snapshot { phext, position } = &self.durability.appended;
        let commit_point = self.commit_point_at(*position, &SharedRefusal::default());
        Pending::new(phext, commit_point.into_iter().collect())
    }

    /// Whether it has neither a text nor files: the write that began it was refused, or its files were removed.
    pub(super) fn is_gone(&self) -> bool {
        let has_files = self.file.is_some() || !self.journal.is_none();
        !has_files && self.is_evictable() && self.phext().file_bytes() == 0
    }

    /// Whether everything up to a commit point is durable. What an earlier load had was durable before the next one.
    pub(super) fn has_committed(&self, point: &CommitPoint) -> bool {
        self.load_id != point.load_id || self.is_durable(point.position)
    }

    fn is_durable(&self, position: Position) -> bool {
        self.durability.is_durable(position, self.answers_wait_for_save())
    }

    /// Gives reads the latest state that has become durable.
    pub(super) fn advance_durable(&mut self) {
        self.durability.advance(self.answers_wait_for_save());
    }

    /// Whether its writes are answered only when they are saved.
    pub(super) fn answers_wait_for_save(&self) -> bool {
        self.phext().file_bytes() <= self.tuning.save_before_answer_bytes
            && matches!(self.save.schedule, Schedule::None | Schedule::Due(_))
    }

    /// Applies a record, and queues it for the journal. It is durable once its commit point is.
    pub(super) fn log(&mut self, entry: &Entry<'_>, frees_space: bool, clock: &Clock) {
        self.enqueue(entry, frees_space, clock);
        self.durability.require_last();
        if let Some((key, write)) = entry.key(clock.time_us) {
            self.keys.insert(key, write, clock.now);
            self.journal.unwritten_keys.push(key);
        }
        if let Entry::Edit { at, edit, .. } = entry {
            self.durability.apply(*at, edit);
            self.save.budget.pay_in(edit.text().len() as u64);
            self.plan_save(clock);
        }
        self.advance_durable();
    }

    fn enqueue(&mut self, entry: &Entry<'_>, frees_space: bool, clock: &Clock) {
        let stamp = self.durability.next_stamp(clock.time_us);
        self.journal.push(&stamp, entry, frees_space);
    }

    /// What to do now: at most one job for the journal and one for the file. A save begins only when it may.
    pub(super) fn next_work(&mut self, clock: &Clock, may_save: bool) -> impl Iterator<Item = Work> {
        let file = self.next_save_work(may_save, clock);
        let journal = self.next_journal_work(clock);
        journal.into_iter().chain(file)
    }

    pub(super) fn finish(&mut self, outcome: Outcome, clock: &Clock) {
        match outcome {
            Outcome::Appended(journal) => {
                self.note_appended(journal);
                self.note_only_keys();
            }
            Outcome::JournalBegun(journal) => {
                // Nothing depends any more on what an earlier worker left.
                self.journal.unconfirmed = SharedRefusal::default();
                self.note_appended(journal);
            }
            Outcome::Rewritten => self.note_synced(),
            Outcome::Unconfirmed => {
                self.journal.unconfirmed.set(Refusal::Unwritable);
                self.note_synced();
            }
            Outcome::Refused(RefusedRecords { records, error }) => self.note_refused(records, &error, clock),
            Outcome::FileWritten(new_file) => self.note_file_written(new_file, clock),
            Outcome::Published(identity, noted) => self.note_published(identity, noted, clock),
            Outcome::ChangedByOther => {
                self.note_unpublished();
                self.must_reload = true;
            }
            Outcome::NotSaved(error) => {
                self.note_unpublished();
                self.note_not_saved(&error, clock);
            }
            Outcome::Discarded => self.note_unpublished(),
        }
        self.advance_durable();
    }
}

/// The time, read once for everything that an operation does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) now: Instant,
    /// Microseconds since 1970.
    pub(super) time_us: u64,
}
