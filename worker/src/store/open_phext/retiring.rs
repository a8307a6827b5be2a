//! How the journal of a phext is removed, and its file too when it has no text.

use std::io;
use std::time::Instant;

use super::journal_writer::JournalState;
use super::{Clock, OpenPhext};
use crate::store::idempotency::WriteKey;
use crate::store::retirement::{Removal, Retiring};
use crate::store::usage::Files;

/// Whether the journal is removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retirement {
    /// Only if the phext has no text.
    #[default]
    Unwanted,
    /// Its space is needed.
    Wanted,
    /// A job removes it.
    UnderWay,
}

/// Whether the space of a journal can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum JournalSpace {
    /// There is no journal.
    None,
    /// The journal is removed as soon as the work under way is done.
    Soon,
    /// A save must come first, and its budget does not allow it yet.
    Unpaid,
    /// The disk refuses.
    Refused,
}

impl OpenPhext {
    /// Whether its file is to be removed because it has no text. In a folder an empty file stays: a missing one may mean
    /// that the folder's disk is missing.
    pub(in crate::store) fn wants_no_file(&self) -> bool {
        self.phext().file_bytes() == 0 && self.name.folder().is_none()
    }

    pub(super) fn is_retiring(&self) -> bool {
        self.retirement == Retirement::UnderWay
    }

    /// The lengths of its files, once everything is saved.
    pub(in crate::store) fn files(&self) -> Files {
        let spare_bytes = self.journal.bytes().saturating_add(self.surplus_bytes());
        Files { text_bytes: self.phext().file_bytes(), spare_bytes }
    }

    /// By how much its file is longer than its text.
    fn surplus_bytes(&self) -> u64 {
        self.file.map_or(0, |file| file.bytes).saturating_sub(self.phext().file_bytes())
    }

    /// Whether the space of its journal can be had.
    pub(in crate::store) fn journal_space(&self, now: Instant) -> JournalSpace {
        if self.journal.is_none() {
            return JournalSpace::None;
        }
        if self.has_save_failed() || !self.journal.is_writable() {
            return JournalSpace::Refused;
        }
        let is_saved = !self.needs_save() || self.is_saving();
        if is_saved || self.paid_at(now) <= now { JournalSpace::Soon } else { JournalSpace::Unpaid }
    }

    /// Asks for the space of its journal. Unsaved edits are saved first, as soon as the budget allows it.
    pub(in crate::store) fn give_up_journal(&mut self, now: Instant) {
        if self.retirement == Retirement::Unwanted {
            self.retirement = Retirement::Wanted;
        }
        let (schedule, paid_at) = (self.save.schedule, self.paid_at(now));
        self.save.schedule = schedule.moved_to(schedule.at().map_or(paid_at, |due| due.min(paid_at)));
    }

    /// When the budget allows a save that makes space. One that gives back as much as it writes is always allowed: the file
    /// becomes half as long at least, so all such saves together write no more than the save before them.
    fn paid_at(&self, now: Instant) -> Instant {
        let file_bytes = self.phext().file_bytes();
        if self.surplus_bytes() >= file_bytes { now } else { self.save.budget.paid_at(file_bytes, now) }
    }

    /// Whether it must stay in memory until its journal is removed.
    pub(super) fn wants_to_retire(&self) -> bool {
        let is_wanted = self.wants_no_file() || self.retirement == Retirement::Wanted;
        is_wanted && self.journal.is_writable() && !self.must_reload
    }

    /// Whether only the keys in its journal are needed, so that it can be removed now.
    pub(in crate::store) fn may_retire(&self, now: Instant) -> bool {
        let is_refused = self.has_save_failed() && self.save.schedule.at().is_none_or(|due| due > now);
        let is_needed = self.is_dirty() && !self.wants_no_file();
        self.wants_to_retire() && self.is_idle() && !is_needed && !is_refused
    }

    /// From now on until [`OpenPhext::note_retired`] a job has its files.
    pub(in crate::store) fn begin_to_retire(&mut self) -> Retiring {
        self.retirement = Retirement::UnderWay;
        Retiring { name: self.name.clone(), expected: self.file, wants_no_file: self.wants_no_file() }
    }

    /// The keys of records that the journal does not have yet.
    pub(in crate::store) fn unwritten_keys(&self) -> &[WriteKey] {
        &self.journal.unwritten_keys
    }

    /// Applies the result of the job that removed its files, after its keys were stored elsewhere. Gives why they could not
    /// be removed, the first time.
    pub(in crate::store) fn note_retired(&mut self, removal: Removal, clock: &Clock) -> Option<io::Error> {
        self.retirement = Retirement::Unwanted;
        let mut refused = None;
        match removal {
            Removal::Removed => {
                self.journal.state = JournalState::None;
                self.note_text_removed();
                // Writes that arrived during the job get a new journal.
                self.keys.keep_only(&self.journal.unwritten_keys);
                self.replan_save(clock);
            }
            Removal::ChangedByOther => self.must_reload = true,
            Removal::Refused { error, is_text_removed } => {
                if is_text_removed {
                    self.note_text_removed();
                    self.journal.drop_edits(self.durability.base);
                }
                self.retirement = Retirement::Wanted;
                refused = self.note_not_retired(clock).then_some(error);
            }
        }
        self.advance_durable();
        refused
    }

    /// Its files stay for a while. Gives whether this is the first failure.
    pub(in crate::store) fn note_not_retired(&mut self, clock: &Clock) -> bool {
        let is_first = !self.has_save_failed();
        self.retry_save_later(clock);
        self.advance_durable();
        is_first
    }

    /// The file of a phext without text is gone, with every edit that the journal has.
    fn note_text_removed(&mut self) {
        if self.durability.appended.phext.file_bytes() == 0 && self.name.folder().is_none() {
            self.file = None;
            self.durability.note_file_removed();
        }
    }
}
