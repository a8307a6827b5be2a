//! How a phext does without a journal, and without any file when it has no text.

use std::io;
use std::time::Instant;

use super::{Clock, JournalState, OpenPhext};
use crate::store::journal::{Base, Header};
use crate::store::recovery::{Keep, Tail};
use crate::store::repeats::RepeatKey;
use crate::store::retirement::{Removal, Retiring};
use crate::store::usage::Files;

/// Whether its journal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetireState {
    /// Not while it has a text.
    Unwanted,
    /// The room of its journal is needed.
    Wanted,
    /// A job is about to remove it.
    UnderWay,
}

/// Whether the room of a journal can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum JournalRoom {
    /// It has none.
    None,
    /// The journal goes as soon as work under way is done.
    Soon,
    /// A save must come first, and is not paid for yet.
    Unpaid,
    /// The disk refuses.
    Refused,
}

impl OpenPhext {
    /// Whether its file is to go, because it has no text. One in a folder stays, and is empty then: where it is missing, its
    /// folder's disk may be.
    pub(in crate::store) fn is_to_go(&self) -> bool {
        self.phext.file_bytes() == 0 && self.name.folder().is_none()
    }

    /// Whether a job is about to remove its files.
    pub(super) fn is_retiring(&self) -> bool {
        self.retirement == RetireState::UnderWay
    }

    /// What its files have, once everything is saved.
    pub(in crate::store) fn files(&self) -> Files {
        let spare_bytes = self.journal_bytes().saturating_add(self.surplus_bytes());
        Files { text_bytes: self.phext.file_bytes(), spare_bytes }
    }

    /// What its file has beyond the text.
    fn surplus_bytes(&self) -> u64 {
        self.file.map_or(0, |file| file.bytes).saturating_sub(self.phext.file_bytes())
    }

    /// What its journal has.
    fn journal_bytes(&self) -> u64 {
        match &self.journal {
            JournalState::None => 0,
            JournalState::Current(journal) | JournalState::Spent { journal, .. } => journal.bytes,
            JournalState::Superseded { tail, .. } => tail.end,
        }
    }

    /// Whether the room of its journal can be had.
    pub(in crate::store) fn journal_room(&self, now: Instant) -> JournalRoom {
        if matches!(self.journal, JournalState::None) {
            return JournalRoom::None;
        }
        if self.is_behind || !self.has_writable_journal() {
            return JournalRoom::Refused;
        }
        let is_saved = !self.is_worth_saving() || self.is_saving();
        if is_saved || self.paid_at(now) <= now { JournalRoom::Soon } else { JournalRoom::Unpaid }
    }

    /// Asks for the room of its journal. What is not saved yet is saved first, as soon as that is paid for.
    pub(in crate::store) fn give_up_journal(&mut self, now: Instant) {
        if self.retirement == RetireState::Unwanted {
            self.retirement = RetireState::Wanted;
        }
        let paid_at = self.paid_at(now);
        self.save_due = Some(self.save_due.map_or(paid_at, |due| due.min(paid_at)));
    }

    /// When a save that makes room is paid for. One that gives back as much as it writes is: as the file becomes half as long
    /// at least, all such saves together write at most what the save before them wrote.
    fn paid_at(&self, now: Instant) -> Instant {
        let file_bytes = self.phext.file_bytes();
        if self.surplus_bytes() >= file_bytes { now } else { self.budget.paid_at(file_bytes, now) }
    }

    /// Whether it must not leave memory before its journal is gone.
    pub(super) fn wants_to_retire(&self) -> bool {
        let is_wanted = self.is_to_go() || self.retirement == RetireState::Wanted;
        is_wanted && self.has_writable_journal() && !self.is_superseded
    }

    /// Whether its journal has nothing that is needed but keys, and may go now.
    pub(in crate::store) fn may_retire(&self, now: Instant) -> bool {
        let is_refused = self.is_behind && self.save_due.is_none_or(|due| due > now);
        let is_needed = self.is_dirty() && !self.is_to_go();
        self.wants_to_retire() && self.is_quiet() && !is_needed && !is_refused
    }

    /// From now on until [`OpenPhext::note_retired`] a job has its files.
    pub(in crate::store) fn begin_to_retire(&mut self) -> Retiring {
        self.retirement = RetireState::UnderWay;
        Retiring { name: self.name.clone(), expected: self.file, is_to_go: self.is_to_go() }
    }

    /// The keys of records that the journal does not have yet.
    pub(in crate::store) fn keys_on_their_way(&self) -> &[RepeatKey] {
        &self.unwritten_keys
    }

    /// Takes in what became of its files, when the keys that its journal had are remembered elsewhere. Gives why they could
    /// not be removed, the first time.
    pub(in crate::store) fn note_retired(&mut self, removal: Removal, clock: &Clock) -> Option<io::Error> {
        self.retirement = RetireState::Unwanted;
        let mut refused = None;
        match removal {
            Removal::Removed => {
                self.journal = JournalState::None;
                self.note_text_gone();
                // Writes that came meanwhile will have a new journal.
                self.repeats.keep_only(&self.unwritten_keys);
                self.is_behind = false;
                self.save_due = None;
                if self.is_dirty() {
                    self.plan_save(clock);
                }
            }
            Removal::ChangedByOther => self.is_superseded = true,
            Removal::Refused { error, is_text_gone } => {
                if is_text_gone {
                    self.note_text_gone();
                    self.journal = self.journal_without_edits();
                }
                self.retirement = RetireState::Wanted;
                refused = self.note_not_retired(clock).then_some(error);
            }
        }
        self.note_durable();
        refused
    }

    /// Its files stay for a while; whether that is news.
    pub(in crate::store) fn note_not_retired(&mut self, clock: &Clock) -> bool {
        let is_news = !self.is_behind;
        self.try_later(clock);
        self.note_durable();
        is_news
    }

    /// The file of a phext without text is gone, with every edit that the journal has.
    fn note_text_gone(&mut self) {
        if self.written.phext.file_bytes() == 0 && self.name.folder().is_none() {
            self.file = None;
            self.base = Base { sequence: self.written.edit, digest: None };
        }
    }

    /// Its journal, of which no edit counts any more, so that a new one must begin before the next.
    fn journal_without_edits(&self) -> JournalState {
        let (file, generation, end) = match &self.journal {
            JournalState::None => return JournalState::None,
            JournalState::Current(journal) | JournalState::Spent { journal, .. } => {
                (journal.file.clone(), journal.generation, journal.bytes)
            }
            JournalState::Superseded { tail, .. } => (tail.file.clone(), tail.header.generation, tail.end),
        };
        let header = Header { generation, base: self.base, carried: 0 };
        let tail = Tail { file, header, from: end, end, keep: Keep::Nothing, base: self.base };
        JournalState::Superseded { tail, is_stuck: false }
    }
}
