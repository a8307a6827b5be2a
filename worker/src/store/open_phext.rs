//! A phext that is in memory, and how its files follow it.
//!
//! Two things go on for it side by side. Records go into the journal, which is synced again and again, so that writes can
//! be acknowledged (`journalling.rs`); and now and then a save brings the phext's file up to date (`saving.rs`). Each step
//! is a [`Job`]; what to do next is decided from values alone, in [`OpenPhext::next_jobs`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use sq_shared::phext_name::PhextName;

use crate::store::disk::{Disk, Identity};
use crate::store::job::{Job, Outcome, RefusedRecords, Task};
use crate::store::journal::{Base, Journal};
use crate::store::look::Look;
use crate::store::phext::Phext;
use crate::store::queue::{Fate, Queue, Refusal};
use crate::store::record::{Entry, Generation, Stamp, fingerprint};
use crate::store::recovery::{Recovered, RecoveredJournal, Tail};
use crate::store::repeats::{KEYS_PER_PHEXT, Remembered, RepeatKey, Repeats};
use crate::store::reserve::Reserve;
use crate::store::save_budget::SaveBudget;
use crate::store::ticket::{Pending, Ticket};

use self::journalling::InFlight;
use self::retiring::RetireState;
use self::saving::Save;

mod journalling;
pub(super) mod parking;
pub(super) mod retiring;
mod saving;

/// When files are brought up to date.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// A phext up to this size is brought up to date on disk before a write is answered: people look at the
    /// file right after the request.
    pub(super) saved_at_once_bytes: u64,
    /// How long after the last write a larger one is saved.
    pub(super) save_delay: Duration,
    /// How long after a save failed for want of room it is tried again.
    pub(super) full_disk_delay: Duration,
    /// A journal that has grown by this, and by half of its phext's size, is not left to grow until the writes
    /// pause. So all saves together write at most about twice what the writes did.
    pub(super) long_journal_bytes: u64,
    /// A journal whose edits are all saved begins anew once it is longer than its keys and this.
    pub(super) spent_journal_bytes: u64,
    /// What all journals of the tenant may take beside what is left of the quota.
    pub(super) journals_bytes: u64,
}

impl Pace {
    pub(super) const DEFAULT: Self = Self {
        saved_at_once_bytes: 1024 * 1024,
        save_delay: Duration::from_millis(300),
        full_disk_delay: Duration::from_secs(1),
        long_journal_bytes: 8 * 1024 * 1024,
        spent_journal_bytes: 256 * 1024,
        journals_bytes: 16 * 1024 * 1024,
    };
}

/// A phext in memory.
#[derive(Debug)]
pub(super) struct OpenPhext {
    name: PhextName,
    /// Tells it from what this phext was in memory before.
    visit: u64,
    pace: Pace,
    /// With every edit, durable or not.
    pub(super) phext: Phext,
    /// What the journal has of it, and goes back to when the disk refuses records.
    written: Point,
    /// The last state that may be told: what it has is durable and, where answers wait for that, saved. `None` until
    /// what a worker before left unsynced has been synced.
    durable: Option<Point>,
    /// Refused when nobody can tell whether what a worker before left is on disk.
    proof: Fate,
    pub(super) repeats: Repeats,
    /// The keys of records that the journal does not have yet.
    unwritten_keys: Vec<RepeatKey>,
    /// What the phext's file was when the store last read or wrote it.
    file: Option<Identity>,
    /// When it was last looked at.
    pub(super) looked: Option<Look>,
    /// What is in it.
    base: Base,
    journal: JournalState,
    /// Records that wait for the next job of the journal.
    queue: Queue,
    /// The journal's job that is under way.
    in_flight: Option<InFlight>,
    save: Save,
    retirement: RetireState,
    /// Up to which byte of which generation the journal has nothing that its file does not have, but for keys; `None` once
    /// that has been looked at.
    spent: Option<(Generation, u64)>,
    last_sequence: u64,
    last_edit: u64,
    /// The last record that must become durable, and the last that is.
    logged: u64,
    synced: u64,
    save_due: Option<Instant>,
    budget: SaveBudget,
    /// Its save is not paid for yet: the journal alone keeps the edits.
    is_deferred: bool,
    /// The file cannot be saved now: the journal alone keeps the edits.
    is_behind: bool,
    /// It must be read again once no job is under way: another program has changed the file, or the journal could not be
    /// written to.
    is_superseded: bool,
}

/// A phext at one moment. It shares its pages with the other moments.
#[derive(Debug, Clone)]
struct Point {
    phext: Phext,
    /// The last record that counts for it, and the last edit.
    logged: u64,
    edit: u64,
}

#[derive(Debug)]
enum JournalState {
    None,
    Current(Journal),
    /// Its records up to `offset` are in the file, and a new generation is to begin with those behind.
    Spent {
        journal: Journal,
        offset: u64,
    },
    /// It belongs to a file that is no more; these of its records go over into a new one.
    Superseded {
        tail: Tail,
        /// The last attempt to begin a new one failed.
        is_stuck: bool,
    },
}

impl OpenPhext {
    /// A phext that has neither a file nor a journal.
    pub(super) fn new(name: PhextName, visit: u64, pace: Pace) -> Self {
        let nothing = Point { phext: Phext::default(), logged: 0, edit: 0 };
        Self {
            name,
            visit,
            pace,
            phext: Phext::default(),
            written: nothing.clone(),
            durable: Some(nothing),
            proof: Fate::default(),
            repeats: Repeats::new(KEYS_PER_PHEXT),
            unwritten_keys: Vec::new(),
            file: None,
            looked: None,
            base: Base { sequence: 0, digest: None },
            journal: JournalState::None,
            queue: Queue::default(),
            in_flight: None,
            save: Save::Idle,
            retirement: RetireState::Unwanted,
            spent: None,
            last_sequence: 0,
            last_edit: 0,
            logged: 0,
            synced: 0,
            save_due: None,
            budget: SaveBudget::default(),
            is_deferred: false,
            is_behind: false,
            is_superseded: false,
        }
    }

    /// A phext as the disk has it. What is not in its file yet is due to be saved.
    pub(super) fn from_recovered(
        name: PhextName,
        visit: u64,
        pace: Pace,
        recovered: Recovered,
        now: Instant,
    ) -> Self {
        let mut open = Self::new(name, visit, pace);
        open.phext = recovered.phext;
        open.repeats = recovered.repeats;
        open.file = recovered.file;
        open.base = Base { sequence: recovered.saved, digest: recovered.digest };
        open.journal = match recovered.journal {
            RecoveredJournal::None => JournalState::None,
            RecoveredJournal::Current(journal) => JournalState::Current(journal),
            RecoveredJournal::Superseded(tail) => JournalState::Superseded { tail, is_stuck: false },
        };
        open.last_sequence = recovered.last_sequence;
        open.last_edit = recovered.last_edit;
        open.logged = recovered.logged;
        open.synced = recovered.synced;
        open.save_due = open.is_dirty().then_some(now);
        open.written = open.now();
        open.durable = None;
        open.note_durable();
        open
    }

    /// The file that this was read from, or saved to.
    pub(super) fn file(&self) -> Option<Identity> {
        self.file
    }

    /// About how much memory it takes.
    pub(super) fn memory_bytes(&self) -> u64 {
        const OVERHEAD_BYTES: u64 = 1024;
        OVERHEAD_BYTES + self.phext.memory_bytes() + self.repeats.memory_bytes() + self.queued_bytes()
    }

    /// What the records take that the disk does not have yet.
    pub(super) fn queued_bytes(&self) -> u64 {
        self.queue.bytes() + self.in_flight.as_ref().map_or(0, |in_flight| in_flight.record_bytes)
    }

    /// Whether there is something that its file does not have.
    pub(super) fn is_dirty(&self) -> bool {
        self.last_edit > self.base.sequence
    }

    /// Whether no job is under way and its journal is durable, so that it may be read anew from the disk.
    pub(super) fn is_quiet(&self) -> bool {
        let is_at_work = self.in_flight.is_some() || self.is_saving() || self.is_retiring();
        !is_at_work && self.queue.is_empty() && self.synced >= self.logged
    }

    /// Whether it may leave memory: its file has all of it, and it has no file too many, or none that can be removed.
    pub(super) fn is_clean(&self) -> bool {
        self.is_quiet() && !self.is_dirty() && (self.is_behind || !self.wants_to_retire())
    }

    /// Whether there is nothing left to do for it, not even later.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_quiet() && !self.is_dirty() && !self.wants_to_retire()
    }

    /// Whether its file cannot have all of it now: the journal keeps the rest.
    pub(super) fn is_stuck(&self) -> bool {
        let is_unremovable = self.is_to_go() && !self.has_writable_journal();
        self.is_quiet() && (self.is_behind || self.is_superseded || is_unremovable)
    }

    /// Whether this is its file: the one that it knows, or the one to which a save is just giving the name; none when that
    /// is just being removed.
    pub(super) fn is_own_file(&self, found: Option<Identity>) -> bool {
        match found {
            _ if found == self.file => true,
            Some(found) => self.is_being_published(&found),
            None => self.is_retiring() && self.written.phext.file_bytes() == 0,
        }
    }

    /// Whether it must be read anew as soon as it is quiet.
    pub(super) fn is_superseded(&self) -> bool {
        self.is_superseded
    }

    /// Whether its file could not be saved, so that the journal alone keeps its last edits.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// When it wants to be saved, or its files to be removed once more after that was refused.
    pub(super) fn save_due(&self) -> Option<Instant> {
        let is_refused = self.is_behind && self.wants_to_retire() && !self.is_retiring();
        self.save_due.filter(|_| (self.is_worth_saving() || is_refused) && !self.is_saving())
    }

    /// Wants to be saved as soon as can be: its memory is needed, or the room of its journal.
    pub(super) fn hurry(&mut self, now: Instant) {
        if !self.is_behind {
            self.save_due = Some(now);
        }
    }

    /// Tries a save again that found no room: there may be some now, or there is no later.
    pub(super) fn retry(&mut self, now: Instant) {
        self.is_behind = false;
        self.hurry(now);
    }

    /// What must be settled before its present state may be told; `None` when it is.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        let in_flight = || self.in_flight.as_ref()?.queue.fate();
        let fate = self.queue.fate().or_else(in_flight).unwrap_or(&self.proof).clone();
        self.ticket_of(self.logged, self.last_edit, fate)
    }

    /// What must be settled before it may be told that the write of a key was made; `None` when it is.
    pub(super) fn ticket_of_key(&self, key: &RepeatKey) -> Option<Ticket> {
        if self.unwritten_keys.contains(key) {
            return self.ticket();
        }
        let Point { logged, edit, .. } = &self.written;
        self.ticket_of(*logged, *edit, self.proof.clone())
    }

    /// Whether what a worker before left may be in memory alone. It is read, because all that was acknowledged is in it; but
    /// nothing that rests on it is confirmed.
    pub(super) fn is_unproven(&self) -> bool {
        self.proof.refusal().is_some()
    }

    /// The phext as it may be told: without what is not durable. Only after a worker that ended at work is there nothing
    /// else to tell yet.
    pub(super) fn durable(&self) -> Pending<&Phext> {
        match &self.durable {
            Some(point) => Pending::settled(&point.phext),
            None => {
                let Point { phext, logged, edit } = &self.written;
                let ticket = self.ticket_of(*logged, *edit, Fate::default());
                Pending::new(phext, ticket.into_iter().collect())
            }
        }
    }

    fn ticket_of(&self, logged: u64, edit: u64, fate: Fate) -> Option<Ticket> {
        let ticket = || Ticket { name: self.name.clone(), visit: self.visit, logged, edit, fate };
        (!self.is_durable(logged, edit)).then(ticket)
    }

    /// Whether it has neither a text nor files: the write that began it was refused, or its files are gone.
    pub(super) fn is_nothing(&self) -> bool {
        let has_files = self.file.is_some() || !matches!(self.journal, JournalState::None);
        !has_files && self.is_clean() && self.phext.file_bytes() == 0
    }

    /// Whether all that a ticket stands for is on disk.
    pub(super) fn is_settled(&self, ticket: &Ticket) -> bool {
        self.visit != ticket.visit || self.is_durable(ticket.logged, ticket.edit)
    }

    /// Whether the records up to one are durable and, where answers wait for that, the edits up to one saved.
    fn is_durable(&self, logged: u64, edit: u64) -> bool {
        self.synced >= logged && (!self.is_saved_at_once() || self.base.sequence >= edit)
    }

    /// Whether answers wait for its saves.
    pub(super) fn is_saved_at_once(&self) -> bool {
        self.phext.file_bytes() <= self.pace.saved_at_once_bytes && !self.is_behind && !self.is_deferred
    }

    /// Applies a record, and queues it for the journal. It is durable once its ticket is settled.
    pub(super) fn log(&mut self, entry: &Entry<'_>, frees_room: bool, clock: &Clock) {
        let sequence = self.enqueue(entry, frees_room, clock);
        self.logged = sequence;
        let time_us = clock.time_us;
        match entry {
            Entry::Edit { at, edit, answer_bytes, repeat } => {
                if let Some(key) = repeat {
                    let (fingerprint, answer_bytes) = (fingerprint(at, edit), *answer_bytes);
                    self.remember(*key, Remembered { fingerprint, answer_bytes, time_us }, clock);
                }
                self.phext.apply(*at, edit);
                self.last_edit = sequence;
                self.budget.pay_in(edit.text().len() as u64);
                self.plan_save(clock);
            }
            Entry::Repeat { key, fingerprint, answer_bytes } => {
                let (fingerprint, answer_bytes) = (*fingerprint, *answer_bytes);
                self.remember(*key, Remembered { fingerprint, answer_bytes, time_us }, clock);
            }
            Entry::Saved { .. } | Entry::Published { .. } => {}
        }
        self.note_durable();
    }

    fn remember(&mut self, key: RepeatKey, remembered: Remembered, clock: &Clock) {
        self.repeats.insert(key, remembered, clock.now);
        self.unwritten_keys.push(key);
    }

    /// What is known of a key.
    pub(super) fn remembered(&self, key: &RepeatKey, clock: &Clock) -> Option<Remembered> {
        self.repeats.get(key, clock.now)
    }

    fn enqueue(&mut self, entry: &Entry<'_>, frees_room: bool, clock: &Clock) -> u64 {
        self.last_sequence += 1;
        let stamp = Stamp { sequence: self.last_sequence, durable: self.synced, time_us: clock.time_us };
        self.queue.push(&stamp, entry, frees_room);
        // A new journal may find room again.
        if let JournalState::Superseded { is_stuck, .. } = &mut self.journal {
            *is_stuck = false;
        }
        self.last_sequence
    }

    /// What to do now: at most one job for the journal and one for the file. A save begins only when it may.
    pub(super) fn next_jobs(
        &mut self,
        disk: &Arc<dyn Disk>,
        reserve: &Arc<Reserve>,
        clock: &Clock,
        may_save: bool,
    ) -> Vec<Job> {
        let file = self.next_save_work(may_save, clock);
        let journal = self.next_journal_work(clock);
        let job = |work| Job {
            disk: Arc::clone(disk),
            reserve: Arc::clone(reserve),
            task: Task::Phext(self.name.clone(), work),
        };
        journal.into_iter().chain(file).map(job).collect()
    }

    /// Takes in what came of a job.
    pub(super) fn finish(&mut self, done: Outcome, clock: &Clock) {
        match done {
            Outcome::Appended(journal) => {
                self.note_appended(journal);
                self.note_only_keys();
            }
            Outcome::Began(journal) => {
                // A new file is sure.
                self.proof = Fate::default();
                self.note_appended(journal);
            }
            Outcome::Refreshed => self.note_refreshed(),
            Outcome::Unproven => {
                self.proof.refuse(Refusal::Unwritable);
                self.note_refreshed();
            }
            Outcome::Refused(RefusedRecords { records, error }) => {
                self.note_refused(records, &error, clock);
            }
            Outcome::Written(written) => self.note_saved(written, clock),
            Outcome::Published(identity, noted) => {
                self.take_back(noted);
                self.note_published(identity, clock);
            }
            Outcome::Foreign => {
                self.take_back(None);
                self.save = Save::Idle;
                self.is_superseded = true;
            }
            Outcome::NotSaved(error) => {
                self.take_back(None);
                self.save = Save::Idle;
                self.note_not_saved(&error, clock);
            }
            Outcome::Discarded => self.save = Save::Idle,
        }
        self.note_durable();
    }

    /// What it is now.
    fn now(&self) -> Point {
        Point { phext: self.phext.clone(), logged: self.logged, edit: self.last_edit }
    }

    /// Notes the last state that may be told.
    fn note_durable(&mut self) {
        let is_newer = |open: &Self, edit| open.durable.as_ref().is_none_or(|durable| durable.edit < edit);
        if is_newer(self, self.written.edit) && self.is_durable(self.written.logged, self.written.edit) {
            self.durable = Some(self.written.clone());
        }
    }
}

/// The time, read once for all that is done in one go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) now: Instant,
    /// Microseconds since 1970.
    pub(super) time_us: u64,
}
