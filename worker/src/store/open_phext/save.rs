//! Saves a phext: writes its text to a new file, notes its digest in the journal, and renames it over the phext's file.
//!
//! ```text
//! Idle -> Writing -> Announcing -> Publishing -> Idle
//!            |            |
//!            | the disk refuses records of edits that are in the new file
//!            v            v
//!     WritingRefused -> Refused -> Discarding -> Idle
//! ```
//!
//! A job that fails without harm, or finds that another program has changed the file, leads back to `Idle`.

use std::io;
use std::time::Instant;

use super::durability::Snapshot;
use super::{Clock, OpenPhext};
use crate::store::disk::Identity;
use crate::store::job::{NewFile, Work};
use crate::store::journal::{Base, Journal};
use crate::store::queue::{Queue, Refusal};
use crate::store::record::{Entry, Generation};
use crate::store::save_budget::SaveBudget;

/// The saves of one phext: when the next one is due, how far the present one has come, and what they may cost.
#[derive(Debug, Default)]
pub(super) struct Save {
    pub(super) schedule: Schedule,
    pub(super) step: Step,
    pub(super) budget: SaveBudget,
}

/// When a phext is saved next.
#[derive(Debug, Default, Clone, Copy)]
pub(super) enum Schedule {
    #[default]
    None,
    /// At this time. The writes to a small phext are not answered before.
    Due(Instant),
    /// At this time, because the budget did not allow it earlier. Until then the journal alone keeps the edits.
    Deferred(Instant),
    /// The last save failed, and is tried again at this time. Until then the journal alone keeps the edits.
    Failed(Instant),
}

impl Schedule {
    pub(super) fn at(self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Due(at) | Self::Deferred(at) | Self::Failed(at) => Some(at),
        }
    }

    /// The same state with another time.
    pub(super) fn moved_to(self, at: Instant) -> Self {
        match self {
            Self::None | Self::Due(_) => Self::Due(at),
            Self::Deferred(_) => Self::Deferred(at),
            Self::Failed(_) => Self::Failed(at),
        }
    }
}

/// How far a save has come.
#[derive(Debug, Default)]
pub(super) enum Step {
    #[default]
    Idle,
    /// A job writes the new file.
    Writing(SaveSnapshot),
    /// A job writes the new file, and the disk has refused an edit in it.
    WritingRefused { file_bytes: u64 },
    /// The new file is complete. The record that announces it must be durable before the rename.
    Announcing { new_file: NewFile, saved: SaveSnapshot, record: u64 },
    /// A job renames the new file.
    Publishing {
        saved: SaveSnapshot,
        base: Base,
        /// The new file's, before the rename.
        identity: Identity,
        /// The job has the journal, to note the rename in it.
        has_journal: bool,
    },
    /// The new file has edits that the disk refused, and must be removed.
    Refused,
    /// A job removes the new file.
    Discarding,
}

/// What a save writes.
#[derive(Debug)]
pub(super) struct SaveSnapshot {
    snapshot: Snapshot,
    /// The end of the journal's records that are in it. `None` when that is unknown, as after refused records.
    journal_end: Option<(Generation, u64)>,
}

impl OpenPhext {
    /// The next job for the file.
    pub(super) fn next_save_work(&mut self, may_save: bool, clock: &Clock) -> Option<Work> {
        let may_begin = may_save && self.needs_save();
        match std::mem::take(&mut self.save.step) {
            Step::Idle if may_begin => {
                let snapshot = self.durability.latest.clone();
                let phext = snapshot.phext.clone();
                self.save.budget.spend(phext.file_bytes(), clock.now);
                let journal_end = self.journal.end();
                self.save.step = Step::Writing(SaveSnapshot { snapshot, journal_end });
                Some(Work::WriteFile { phext })
            }
            Step::Announcing { new_file, saved, record } if self.durability.has_synced(record) => {
                let base = Base { sequence: saved.snapshot.position.edit, digest: Some(new_file.digest) };
                let note = self.lend_journal(&Entry::Published { upto: base.sequence }, clock);
                let (identity, has_journal) = (new_file.identity, note.is_some());
                self.save.step = Step::Publishing { saved, base, identity, has_journal };
                Some(Work::Publish { new_file, expected: self.file, note })
            }
            Step::Refused => {
                self.save.step = Step::Discarding;
                Some(Work::Discard)
            }
            step => {
                self.save.step = step;
                None
            }
        }
    }

    /// Plans a save after an edit. One that is overdue stays so.
    pub(super) fn plan_save(&mut self, clock: &Clock) {
        let paid_at = self.save.budget.paid_at(self.phext().file_bytes(), clock.now);
        let at = match self.save.schedule {
            Schedule::Failed(_) => return,
            Schedule::Due(at) | Schedule::Deferred(at) if at <= clock.now => at,
            Schedule::None | Schedule::Due(_) | Schedule::Deferred(_) => {
                paid_at.max(clock.now + self.tuning.save_delay)
            }
        };
        self.save.schedule = if paid_at > clock.now { Schedule::Deferred(at) } else { Schedule::Due(at) };
    }

    /// Nothing is left of the last plan: what is not saved gets a new one.
    pub(super) fn replan_save(&mut self, clock: &Clock) {
        self.save.schedule = Schedule::None;
        if self.is_dirty() {
            self.plan_save(clock);
        }
    }

    /// Since when a save is due; `None` when none is.
    pub(in crate::store) fn save_wanted(&self, now: Instant, is_closing: bool) -> Option<Instant> {
        if !self.needs_save() || self.is_saving() {
            return None;
        }
        let is_pressing = is_closing || self.is_journal_long();
        let is_urgent = self.answers_wait_for_save() || !self.has_save_failed() && is_pressing;
        self.save.schedule.at().filter(|due| *due <= now).or(is_urgent.then_some(now))
    }

    /// Whether its file must get edits that it does not have. The file of a phext without text is removed instead.
    pub(in crate::store) fn needs_save(&self) -> bool {
        self.is_dirty() && !self.wants_no_file() && !self.must_reload && !self.is_retiring()
    }

    /// The bytes of the file that a save is writing; 0 when none is under way.
    pub(in crate::store) fn new_file_bytes(&self) -> u64 {
        match &self.save.step {
            Step::Writing(saved) | Step::Announcing { saved, .. } | Step::Publishing { saved, .. } => {
                saved.snapshot.phext.file_bytes()
            }
            Step::WritingRefused { file_bytes } => *file_bytes,
            Step::Idle | Step::Refused | Step::Discarding => 0,
        }
    }

    pub(in crate::store) fn is_saving(&self) -> bool {
        !matches!(self.save.step, Step::Idle)
    }

    /// Whether the last save failed, so that the journal alone keeps the last edits.
    pub(in crate::store) fn has_save_failed(&self) -> bool {
        matches!(self.save.schedule, Schedule::Failed(_))
    }

    /// Whether this is the file that a job is renaming.
    pub(super) fn is_being_published(&self, found: &Identity) -> bool {
        matches!(&self.save.step, Step::Publishing { identity, .. } if found.is_renamed(identity))
    }

    /// The new file is complete. The journal must know its contents before the rename.
    pub(super) fn note_file_written(&mut self, new_file: NewFile, clock: &Clock) {
        match std::mem::take(&mut self.save.step) {
            Step::Writing(saved) => {
                let entry = Entry::Saved { upto: saved.snapshot.position.edit, digest: new_file.digest };
                // On a full disk the record may use the reserve, but not for writes that go along with it.
                let frees_space = self.journal.queue.is_empty();
                self.enqueue(&entry, frees_space, clock);
                self.durability.require_last();
                let record = self.durability.last_sequence;
                self.save.step = Step::Announcing { new_file, saved, record };
            }
            Step::WritingRefused { .. } => self.save.step = Step::Refused,
            _ => {}
        }
    }

    pub(super) fn note_published(&mut self, identity: Identity, noted: Option<Journal>, clock: &Clock) {
        let Some((saved, base)) = self.end_publishing(noted) else { return };
        self.file = Some(identity);
        self.durability.note_saved(base, &saved.snapshot);
        self.replan_save(clock);
        self.journal.saved_end = saved.journal_end;
    }

    /// A job has ended without a new file for the phext.
    pub(super) fn note_unpublished(&mut self) {
        let _ = self.end_publishing(None);
    }

    /// Ends a save, and takes the journal back if its last job had it.
    fn end_publishing(&mut self, noted: Option<Journal>) -> Option<(SaveSnapshot, Base)> {
        match std::mem::take(&mut self.save.step) {
            Step::Publishing { saved, base, has_journal, .. } => {
                if has_journal {
                    self.journal.take_back(noted);
                }
                Some((saved, base))
            }
            _ => None,
        }
    }

    /// The disk refused all edits that the journal does not have: a save must not publish them.
    pub(super) fn refuse_save(&mut self, error: &io::Error, clock: &Clock) {
        let appended_edit = self.durability.appended.position.edit;
        self.save.step = match std::mem::take(&mut self.save.step) {
            Step::Writing(saved) if saved.snapshot.position.edit > appended_edit => {
                Step::WritingRefused { file_bytes: saved.snapshot.phext.file_bytes() }
            }
            Step::Writing(saved) => Step::Writing(SaveSnapshot { journal_end: None, ..saved }),
            Step::Announcing { .. } => {
                self.note_save_failed(error, clock);
                Step::Refused
            }
            step => step,
        };
    }

    pub(super) fn note_not_saved(&mut self, error: &io::Error, clock: &Clock) {
        match Refusal::from(error) {
            // The next read of its files reports that.
            Refusal::Blocked => {
                self.must_reload = true;
                // Records in flight may still succeed; then the reload finds them in the journal.
                if !self.journal.is_busy() {
                    self.refuse(Queue::default(), error, clock);
                }
            }
            Refusal::Full | Refusal::Unwritable => self.note_save_failed(error, clock),
            Refusal::Failed(_) => {
                self.note_save_failed(error, clock);
                // The whole text was written, maybe in vain each time: each attempt must be paid for.
                let paid_at = self.save.budget.paid_at(self.phext().file_bytes(), clock.now);
                let schedule = self.save.schedule;
                self.save.schedule = schedule.moved_to(schedule.at().map_or(paid_at, |at| at.max(paid_at)));
            }
        }
    }

    /// Leaves the edits to the journal for a while.
    pub(super) fn note_save_failed(&mut self, error: &io::Error, clock: &Clock) {
        if !self.has_save_failed() {
            tracing::error!(phext = %self.name, %error, "failed to save a phext; its writes stay in the journal, and the save is retried");
        }
        self.retry_save_later(clock);
    }

    pub(super) fn retry_save_later(&mut self, clock: &Clock) {
        self.save.schedule = Schedule::Failed(clock.now + self.tuning.save_retry_delay);
    }
}
