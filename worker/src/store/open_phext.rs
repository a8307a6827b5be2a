//! A phext that is in memory, and how its files follow it.
//!
//! Two things go on for it side by side. The journal is synced again and again, so that writes can be
//! acknowledged; and now and then a save brings the phext's file up to date: a new file is written, the
//! journal notes what is in it, and only then does it take the phext's name. Each step is a [`Job`]; what to
//! do next is decided from values alone, in [`OpenPhext::next_jobs`].

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sq_shared::phext_name::PhextName;

use crate::store::disk::{Disk, FileName, Identity, is_full};
use crate::store::job::{Job, Outcome, Work, Written};
use crate::store::journal::{AppendError, Base, Journal};
use crate::store::look::Look;
use crate::store::phext::Phext;
use crate::store::record::{Entry, Stamp, fingerprint};
use crate::store::recovery::{Recovered, RecoveredJournal, Tail};
use crate::store::repeats::{Remembered, RepeatKey, Repeats};
use crate::store::ticket::Ticket;

mod generation;

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
}

impl Pace {
    pub(super) const DEFAULT: Self = Self {
        saved_at_once_bytes: 1024 * 1024,
        save_delay: Duration::from_millis(300),
        full_disk_delay: Duration::from_secs(1),
        long_journal_bytes: 8 * 1024 * 1024,
        spent_journal_bytes: 256 * 1024,
    };
}

/// A phext in memory.
#[derive(Debug)]
pub(super) struct OpenPhext {
    name: PhextName,
    /// Tells it from what this phext was in memory before.
    visit: u64,
    pace: Pace,
    pub(super) phext: Phext,
    pub(super) repeats: Repeats,
    /// What the phext's file was when the store last read or wrote it.
    file: Option<Identity>,
    /// When it was last looked at.
    pub(super) looked: Option<Look>,
    /// What is in it.
    base: Base,
    journal: JournalState,
    is_syncing: bool,
    save: Save,
    last_save: Option<Snapshot>,
    last_sequence: u64,
    last_edit: u64,
    /// The last record that must become durable, and the last that is.
    logged: u64,
    synced: u64,
    save_due: Option<Instant>,
    /// The disk is too full to save: the journal alone keeps the edits.
    is_behind: bool,
    /// Another program has changed the file: it must be read anew once no job is under way.
    is_superseded: bool,
}

#[derive(Debug)]
enum JournalState {
    None,
    /// It has not got its name yet.
    New(Journal),
    Current(Journal),
    /// It belongs to a file that is no more; these of its records go over into a new one.
    Superseded(Tail),
}

#[derive(Debug)]
enum Save {
    Idle,
    Writing(Snapshot),
    /// The new file is complete, and the record that says so must become durable first.
    Written {
        written: Written,
        snapshot: Snapshot,
        record: u64,
    },
    Publishing {
        snapshot: Snapshot,
        base: Base,
        /// The new file's, before the rename.
        identity: Identity,
    },
}

/// What a save has in it.
#[derive(Debug, Clone, Copy)]
struct Snapshot {
    upto: u64,
    /// Where the journal's records behind it begin, and in which generation.
    journal_bytes: u64,
    generation: Option<u64>,
}

/// What a finished job leaves to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// The disk is full: whatever room is kept should be given up, and the save tried again.
    MakeRoom,
    /// A save succeeded: there may be room again.
    Saved,
}

impl OpenPhext {
    /// A phext that has neither a file nor a journal.
    pub(super) fn new(name: PhextName, visit: u64, pace: Pace) -> Self {
        let base = Base { sequence: 0, digest: None };
        Self {
            name,
            visit,
            pace,
            phext: Phext::default(),
            repeats: Repeats::default(),
            file: None,
            looked: None,
            base,
            journal: JournalState::None,
            is_syncing: false,
            save: Save::Idle,
            last_save: None,
            last_sequence: 0,
            last_edit: 0,
            logged: 0,
            synced: 0,
            save_due: None,
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
            RecoveredJournal::Superseded(tail) => JournalState::Superseded(tail),
        };
        open.last_sequence = recovered.last_sequence;
        open.last_edit = recovered.last_edit;
        open.logged = recovered.logged;
        open.synced = recovered.synced;
        open.save_due = open.is_dirty().then_some(now);
        open
    }

    /// The file that this was read from, or saved to.
    pub(super) fn file(&self) -> Option<Identity> {
        self.file
    }

    /// About how much memory it takes.
    pub(super) fn memory_bytes(&self) -> u64 {
        const OVERHEAD_BYTES: u64 = 1024;
        OVERHEAD_BYTES + self.phext.memory_bytes() + self.repeats.memory_bytes()
    }

    /// Whether there is something that its file does not have.
    pub(super) fn is_dirty(&self) -> bool {
        self.last_edit > self.base.sequence
    }

    /// Whether no job is under way and its journal is durable, so that it may be read anew from the disk.
    pub(super) fn is_quiet(&self) -> bool {
        let is_at_work = self.is_syncing || !matches!(self.save, Save::Idle);
        !is_at_work && !matches!(self.journal, JournalState::New(_)) && self.synced >= self.logged
    }

    /// Whether it may leave memory: its file has all of it.
    pub(super) fn is_clean(&self) -> bool {
        self.is_quiet() && !self.is_dirty()
    }

    /// Whether this is its file: the one that it knows, or the one to which a save is just giving the name.
    pub(super) fn is_own_file(&self, found: Option<Identity>) -> bool {
        let is_new = |new: &Identity| found.is_some_and(|found| found.is_renamed(new));
        found == self.file || matches!(&self.save, Save::Publishing { identity, .. } if is_new(identity))
    }

    /// Whether it must be read anew as soon as it is quiet.
    pub(super) fn is_superseded(&self) -> bool {
        self.is_superseded
    }

    /// Whether the disk was too full to save it.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// When it wants to be saved.
    pub(super) fn save_due(&self) -> Option<Instant> {
        self.save_due.filter(|_| self.is_dirty() && !self.is_superseded && !self.is_saving())
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
        let (logged, edit) = (self.logged, self.last_edit);
        let ticket = || Ticket { name: self.name.clone(), visit: self.visit, logged, edit };
        (!self.is_durable(logged, edit)).then(ticket)
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
        self.phext.file_bytes() <= self.pace.saved_at_once_bytes && !self.is_behind
    }

    /// Writes a record into the journal, and then applies it. It is durable once its ticket is settled.
    pub(super) fn log(
        &mut self,
        disk: &Arc<dyn Disk>,
        entry: &Entry<'_>,
        clock: &Clock,
    ) -> Result<(), AppendError> {
        let sequence = self.append(disk, entry, clock)?;
        self.logged = sequence;
        let time_us = clock.time_us;
        match entry {
            Entry::Edit { at, edit, answer_bytes, repeat } => {
                if let Some(key) = repeat {
                    let (fingerprint, answer_bytes) = (fingerprint(at, edit), *answer_bytes);
                    self.repeats.insert(*key, Remembered { fingerprint, answer_bytes, time_us });
                }
                self.phext.apply(*at, edit);
                self.last_edit = sequence;
                let is_overdue = self.save_due.is_some_and(|due| due <= clock.now);
                if !is_overdue && !self.is_behind {
                    self.save_due = Some(clock.now + self.pace.save_delay);
                }
            }
            Entry::Repeat { key, fingerprint, answer_bytes } => {
                let (fingerprint, answer_bytes) = (*fingerprint, *answer_bytes);
                self.repeats.insert(*key, Remembered { fingerprint, answer_bytes, time_us });
            }
            Entry::Saved { .. } | Entry::Published { .. } => {}
        }
        Ok(())
    }

    /// What is known of a key.
    pub(super) fn remembered(&self, key: &RepeatKey, clock: &Clock) -> Option<Remembered> {
        self.repeats.get(key, clock.time_us)
    }

    fn append(&mut self, disk: &Arc<dyn Disk>, entry: &Entry<'_>, clock: &Clock) -> Result<u64, AppendError> {
        let sequence = self.last_sequence + 1;
        let stamp = Stamp { sequence, durable: self.synced, time_us: clock.time_us };
        self.writable_journal(disk, clock)?.append(&stamp, entry)?;
        self.last_sequence = sequence;
        Ok(sequence)
    }

    /// What to do now: at most one job for the journal and one for the file. A save begins only when it may.
    pub(super) fn next_jobs(&mut self, disk: &Arc<dyn Disk>, clock: &Clock, may_save: bool) -> Vec<Job> {
        self.begin_superseded(disk, clock);
        let file = self.next_save(may_save);
        let journal = self.next_sync();
        let job = |work| Job { disk: Arc::clone(disk), name: self.name.clone(), work };
        journal.into_iter().chain(file).map(job).collect()
    }

    fn next_sync(&mut self) -> Option<Work> {
        if self.is_syncing {
            return None;
        }
        if let JournalState::Superseded(tail) = &self.journal
            && self.is_sync_awaited()
        {
            // There was no room for a new one. Reads go on all the same: the old one has everything.
            let (journal, bytes) = (Arc::clone(&tail.file), tail.end);
            self.is_syncing = true;
            return Some(Work::Refresh { journal, bytes, upto: self.last_sequence });
        }
        let (is_new, journal) = match &self.journal {
            JournalState::New(journal) => (true, Arc::clone(&journal.file)),
            JournalState::Current(journal) => (false, Arc::clone(&journal.file)),
            JournalState::None | JournalState::Superseded(_) => return None,
        };
        if !is_new && !self.is_sync_awaited() {
            return None;
        }
        self.is_syncing = true;
        let upto = self.last_sequence;
        Some(if is_new { Work::Install { journal, upto } } else { Work::Sync { journal, upto } })
    }

    /// Whether somebody waits for records of the journal.
    fn is_sync_awaited(&self) -> bool {
        match &self.save {
            Save::Written { record, .. } => self.synced < *record,
            // The answers wait for the save anyway, and its record makes the edits durable with itself.
            _ if self.is_saved_at_once() && self.is_dirty() && !self.is_superseded => false,
            _ => self.synced < self.logged,
        }
    }

    fn next_save(&mut self, may_save: bool) -> Option<Work> {
        match std::mem::replace(&mut self.save, Save::Idle) {
            Save::Idle if !self.is_superseded && self.is_dirty() && may_save => {
                let (journal_bytes, generation) = match &self.journal {
                    JournalState::New(journal) | JournalState::Current(journal) => {
                        (journal.bytes, Some(journal.generation))
                    }
                    JournalState::None | JournalState::Superseded(_) => (0, None),
                };
                let upto = self.last_edit;
                self.save = Save::Writing(Snapshot { upto, journal_bytes, generation });
                Some(Work::Write { snapshot: self.phext.clone() })
            }
            Save::Written { written, snapshot, record } if self.synced >= record => {
                let base = Base { sequence: snapshot.upto, digest: Some(written.digest) };
                self.save = Save::Publishing { snapshot, base, identity: written.identity };
                Some(Work::Publish { written, expected: self.file })
            }
            save => {
                self.save = save;
                None
            }
        }
    }

    /// Since when a save is due; `None` when none is.
    pub(super) fn save_wanted(&self, now: Instant, is_closing: bool) -> Option<Instant> {
        if !self.is_dirty() || self.is_superseded || self.is_saving() {
            return None;
        }
        let is_urgent = self.is_saved_at_once() || !self.is_behind && (is_closing || self.is_journal_long());
        self.save_due.filter(|due| *due <= now).or(is_urgent.then_some(now))
    }

    pub(super) fn is_saving(&self) -> bool {
        !matches!(self.save, Save::Idle)
    }

    fn is_journal_long(&self) -> bool {
        let limit = self.pace.long_journal_bytes + self.phext.file_bytes() / 2;
        matches!(&self.journal, JournalState::Current(journal) if journal.bytes > limit)
    }

    /// Takes in what came of a job. An error is one of the disk: what it holds is known only after a new start.
    pub(super) fn finish(&mut self, disk: &Arc<dyn Disk>, done: Outcome, clock: &Clock) -> io::Result<Next> {
        match done {
            Outcome::Synced(upto) => {
                self.is_syncing = false;
                self.synced = self.synced.max(upto);
                Ok(Next::Nothing)
            }
            Outcome::Installed(upto) => {
                self.is_syncing = false;
                self.synced = self.synced.max(upto);
                self.journal = match std::mem::replace(&mut self.journal, JournalState::None) {
                    JournalState::New(journal) => JournalState::Current(journal),
                    journal => journal,
                };
                Ok(Next::Nothing)
            }
            Outcome::Written(written) => self.note_written(disk, written, clock),
            Outcome::Published(identity) => self.note_published(disk, identity, clock),
            Outcome::Foreign => {
                self.save = Save::Idle;
                self.is_superseded = true;
                disk.remove(&FileName::NewPhext(self.name.clone()))?;
                Ok(Next::Nothing)
            }
            Outcome::NoRoom => self.give_up_save(disk, clock),
        }
    }

    /// The journal must know what is in the new file before that takes the phext's name.
    fn note_written(&mut self, disk: &Arc<dyn Disk>, written: Written, clock: &Clock) -> io::Result<Next> {
        let Save::Writing(snapshot) = std::mem::replace(&mut self.save, Save::Idle) else {
            return Ok(Next::Nothing);
        };
        let entry = Entry::Saved { upto: snapshot.upto, digest: written.digest };
        match self.append(disk, &entry, clock) {
            Ok(record) => {
                self.logged = self.logged.max(record);
                self.save = Save::Written { written, snapshot, record };
                Ok(Next::Nothing)
            }
            Err(AppendError::Refused(error)) if is_full(&error) => self.give_up_save(disk, clock),
            Err(AppendError::Refused(error) | AppendError::Torn(error)) => Err(error),
        }
    }

    fn note_published(
        &mut self,
        disk: &Arc<dyn Disk>,
        identity: Identity,
        clock: &Clock,
    ) -> io::Result<Next> {
        let Save::Publishing { snapshot, base, .. } = std::mem::replace(&mut self.save, Save::Idle) else {
            return Ok(Next::Nothing);
        };
        self.file = Some(identity);
        self.base = base;
        self.is_behind = false;
        self.save_due = self.is_dirty().then(|| clock.now + self.pace.save_delay);
        match self.append(disk, &Entry::Published { upto: base.sequence }, clock) {
            // Nobody waits for it: without it the file's contents say the same after a new start.
            Ok(_) => {}
            Err(AppendError::Refused(error)) if is_full(&error) => {}
            Err(AppendError::Refused(error) | AppendError::Torn(error)) => return Err(error),
        }
        self.last_save = Some(snapshot);
        Ok(Next::Saved)
    }

    fn give_up_save(&mut self, disk: &Arc<dyn Disk>, clock: &Clock) -> io::Result<Next> {
        self.save = Save::Idle;
        if !self.is_behind {
            tracing::error!(phext = %self.name, "the disk is too full to save a phext; its journal keeps the writes");
        }
        self.is_behind = true;
        self.save_due = Some(clock.now + self.pace.full_disk_delay);
        disk.remove(&FileName::NewPhext(self.name.clone()))?;
        Ok(Next::MakeRoom)
    }
}

/// The time, read once for all that is done in one go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) now: Instant,
    /// Microseconds since 1970.
    pub(super) time_us: u64,
}
