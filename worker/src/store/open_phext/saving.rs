//! How a phext's file is brought up to date: a new file is written, the journal notes what is in it, and only then does
//! it take the phext's name.

use std::io;
use std::time::Instant;

use super::{Clock, JournalState, OpenPhext, Point};
use crate::store::disk::Identity;
use crate::store::job::{Work, Written};
use crate::store::journal::{Base, Journal};
use crate::store::queue::{Queue, Refusal};
use crate::store::record::{Entry, Generation};

/// Where a save stands.
#[derive(Debug)]
pub(super) enum Save {
    Idle,
    /// The new file is being written.
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
        /// The job has the journal, to note there what it has done.
        has_journal: bool,
    },
    /// The new file has edits that the disk refused, and is to be removed.
    Refused,
    Discarding,
}

/// What a save has in it.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    point: Point,
    /// The disk refused an edit that is in it.
    is_refused: bool,
    /// Where the journal's records behind it begin, and in which generation; no generation when that is not known, or not
    /// any more since the disk refused records.
    pub(super) journal_bytes: u64,
    pub(super) generation: Option<Generation>,
}

impl OpenPhext {
    /// What the file needs now.
    pub(super) fn next_save_work(&mut self, may_save: bool, clock: &Clock) -> Option<Work> {
        let may_begin = may_save && self.is_worth_saving();
        match std::mem::replace(&mut self.save, Save::Idle) {
            Save::Idle if may_begin => {
                let (generation, journal_bytes) = self.journal_end().unzip();
                let snapshot = Snapshot {
                    point: self.now(),
                    is_refused: false,
                    journal_bytes: journal_bytes.unwrap_or_default(),
                    generation,
                };
                self.save = Save::Writing(snapshot);
                self.budget.spend(self.phext.file_bytes(), clock.now);
                Some(Work::Write { snapshot: self.phext.clone() })
            }
            Save::Written { written, snapshot, record } if self.synced >= record => {
                let base = Base { sequence: snapshot.point.edit, digest: Some(written.digest) };
                let note = self.lend_journal(&Entry::Published { upto: base.sequence }, clock);
                let (identity, has_journal) = (written.identity, note.is_some());
                self.save = Save::Publishing { snapshot, base, identity, has_journal };
                Some(Work::Publish { written, expected: self.file, note })
            }
            Save::Refused => {
                self.save = Save::Discarding;
                Some(Work::Discard)
            }
            save => {
                self.save = save;
                None
            }
        }
    }

    /// After an edit: when its save is due.
    pub(super) fn plan_save(&mut self, clock: &Clock) {
        let paid_at = self.budget.paid_at(self.phext.file_bytes(), clock.now);
        self.is_deferred = paid_at > clock.now;
        let is_overdue = self.save_due.is_some_and(|due| due <= clock.now);
        if !is_overdue && !self.is_behind {
            self.save_due = Some(paid_at.max(clock.now + self.pace.save_delay));
        }
    }

    /// Since when a save is due; `None` when none is.
    pub(in crate::store) fn save_wanted(&self, now: Instant, is_closing: bool) -> Option<Instant> {
        if !self.is_worth_saving() || self.is_saving() {
            return None;
        }
        let is_urgent = self.is_saved_at_once() || !self.is_behind && (is_closing || self.is_journal_long());
        self.save_due.filter(|due| *due <= now).or(is_urgent.then_some(now))
    }

    /// Whether its file is to have more than it has. That of a phext without text is removed.
    pub(in crate::store) fn is_worth_saving(&self) -> bool {
        self.is_dirty() && !self.is_to_go() && !self.is_superseded && !self.is_retiring()
    }

    /// What its new file has, or will have; 0 when none is under way.
    pub(in crate::store) fn new_file_bytes(&self) -> u64 {
        match &self.save {
            Save::Writing(snapshot) | Save::Written { snapshot, .. } | Save::Publishing { snapshot, .. } => {
                snapshot.point.phext.file_bytes()
            }
            Save::Idle | Save::Refused | Save::Discarding => 0,
        }
    }

    pub(in crate::store) fn is_saving(&self) -> bool {
        !matches!(self.save, Save::Idle)
    }

    /// Whether this is the file to which a save is just giving the phext's name.
    pub(super) fn is_being_published(&self, found: &Identity) -> bool {
        matches!(&self.save, Save::Publishing { identity, .. } if found.is_renamed(identity))
    }

    /// The journal must know what is in the new file before that takes the phext's name.
    pub(super) fn note_saved(&mut self, written: Written, clock: &Clock) {
        let Save::Writing(snapshot) = std::mem::replace(&mut self.save, Save::Idle) else { return };
        if snapshot.is_refused {
            self.save = Save::Refused;
            return;
        }
        let entry = Entry::Saved { upto: snapshot.point.edit, digest: written.digest };
        // On a full disk it may use the reserve, but not for writes that go along with it.
        let frees_room = self.queue.is_empty();
        let record = self.enqueue(&entry, frees_room, clock);
        self.logged = record;
        self.save = Save::Written { written, snapshot, record };
    }

    pub(super) fn note_published(&mut self, identity: Identity, clock: &Clock) {
        let Save::Publishing { snapshot, base, .. } = std::mem::replace(&mut self.save, Save::Idle) else {
            return;
        };
        self.file = Some(identity);
        self.base = base;
        self.is_behind = false;
        self.save_due = None;
        self.is_deferred = false;
        if self.is_dirty() {
            self.plan_save(clock);
        }
        if self.durable.as_ref().is_none_or(|durable| durable.edit < snapshot.point.edit) {
            self.durable = Some(snapshot.point.clone());
        }
        self.spent = snapshot.generation.map(|generation| (generation, snapshot.journal_bytes));
    }

    /// A job ends that may have had the journal.
    pub(super) fn take_back(&mut self, noted: Option<Journal>) {
        if matches!(self.save, Save::Publishing { has_journal: true, .. }) {
            self.in_flight = None;
            if let Some(journal) = noted {
                self.journal = JournalState::Current(journal);
            }
        }
    }

    /// The disk refused records: a save must not publish what they say.
    pub(super) fn refuse_save(&mut self, error: &io::Error, clock: &Clock) {
        let written_edit = self.written.edit;
        match std::mem::replace(&mut self.save, Save::Idle) {
            Save::Writing(snapshot) => {
                let is_refused = snapshot.is_refused || snapshot.point.edit > written_edit;
                self.save = Save::Writing(Snapshot { is_refused, generation: None, ..snapshot });
            }
            Save::Written { .. } => {
                self.save = Save::Refused;
                self.fall_behind(error, clock);
            }
            save => self.save = save,
        }
    }

    pub(super) fn note_not_saved(&mut self, error: &io::Error, clock: &Clock) {
        match Refusal::from(error) {
            // The next look at its files says so.
            Refusal::Blocked => {
                self.is_superseded = true;
                // Records that are on their way may still succeed; then the look finds them in the journal.
                if !self.is_journal_busy() {
                    self.refuse(Queue::default(), error, clock);
                }
            }
            Refusal::Full | Refusal::Unwritable => self.fall_behind(error, clock),
            Refusal::Failed(_) => {
                self.fall_behind(error, clock);
                // All of it was written, maybe for nothing every time.
                let paid_at = self.budget.paid_at(self.phext.file_bytes(), clock.now);
                self.save_due = self.save_due.map(|due| due.max(paid_at));
            }
        }
    }

    /// Leaves the edits to the journal for a while.
    pub(super) fn fall_behind(&mut self, error: &io::Error, clock: &Clock) {
        if !self.is_behind {
            tracing::error!(phext = %self.name, %error, "failed to save a phext; its journal keeps the writes meanwhile");
        }
        self.try_later(clock);
    }

    pub(super) fn try_later(&mut self, clock: &Clock) {
        self.is_behind = true;
        self.save_due = Some(clock.now + self.pace.full_disk_delay);
    }
}
