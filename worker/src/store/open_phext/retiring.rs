//! How a phext does without a journal, and without any file when it has no text.

use std::time::Instant;

use super::{Clock, JournalState, OpenPhext};
use crate::store::journal::{Base, Header};
use crate::store::recovery::{Keep, Tail};
use crate::store::repeats::Repeats;
use crate::store::retirement::{Departure, Retiring};
use crate::store::usage::Files;

/// Whether its journal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retirement {
    /// Not while it has a text.
    Unwanted,
    /// The room of its journal is needed.
    Wanted,
    /// A job is about to remove it.
    UnderWay,
}

impl OpenPhext {
    /// Whether it has no text.
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.phext.file_bytes() == 0
    }

    /// Whether a job is about to remove its files.
    pub(super) fn is_retiring(&self) -> bool {
        self.retirement == Retirement::UnderWay
    }

    /// What its files have, once everything is saved.
    pub(in crate::store) fn files(&self) -> Files {
        Files { text_bytes: self.phext.file_bytes(), journal_bytes: self.journal_bytes() }
    }

    /// What its journal has.
    pub(in crate::store) fn journal_bytes(&self) -> u64 {
        match &self.journal {
            JournalState::None => 0,
            JournalState::Current(journal) | JournalState::Spent { journal, .. } => journal.bytes,
            JournalState::Superseded { tail, .. } => tail.end,
        }
    }

    /// Asks for the room of its journal; whether it can be had. What is not saved yet is saved first, as soon as that is
    /// paid for.
    pub(in crate::store) fn give_up_journal(&mut self, now: Instant) -> bool {
        if self.is_behind || !self.has_writable_journal() {
            return false;
        }
        if self.retirement == Retirement::Unwanted {
            self.retirement = Retirement::Wanted;
            self.save_due = Some(self.budget.paid_at(self.phext.file_bytes(), now));
        }
        true
    }

    /// Whether it must not leave memory before its journal is gone.
    pub(super) fn wants_to_retire(&self) -> bool {
        let is_wanted = self.is_empty() || self.retirement == Retirement::Wanted;
        is_wanted && self.has_writable_journal() && !self.is_superseded
    }

    /// Whether its journal has nothing that is needed but keys, and may go now.
    pub(in crate::store) fn may_retire(&self, now: Instant) -> bool {
        let is_refused = self.is_behind && self.save_due.is_none_or(|due| due > now);
        // Of an old journal nobody knows what is durable: edits go over into a new one first.
        let is_known = !matches!(self.journal, JournalState::Superseded { .. }) || !self.is_dirty();
        let is_needed = self.is_dirty() && !self.is_empty();
        self.wants_to_retire() && self.is_quiet() && is_known && !is_needed && !is_refused
    }

    /// From now on until [`OpenPhext::note_retired`] a job has its files.
    pub(in crate::store) fn begin_to_retire(&mut self) -> Retiring {
        self.retirement = Retirement::UnderWay;
        Retiring { name: self.name.clone(), expected: self.file, is_empty: self.is_empty() }
    }

    /// Takes in what became of its files, and gives the keys that it need not remember any more.
    pub(in crate::store) fn note_retired(&mut self, departure: Departure, clock: &Clock) -> Option<Repeats> {
        self.retirement = Retirement::Unwanted;
        let mut keys = None;
        match departure {
            Departure::Gone => {
                self.journal = JournalState::None;
                self.note_text_gone();
                // Writes that came meanwhile will have a journal of their own.
                keys = Some(self.repeats.take_all_but(&self.unwritten_keys));
                self.is_behind = false;
                self.save_due = None;
                if self.is_dirty() {
                    self.plan_save(clock);
                }
            }
            Departure::Foreign => self.is_superseded = true,
            Departure::Refused { error, is_text_gone } => {
                if is_text_gone {
                    self.note_text_gone();
                    self.journal = self.journal_without_edits();
                }
                self.fall_behind(&error, clock);
            }
        }
        self.note_durable();
        keys
    }

    /// The file of a phext without text is gone, with every edit that the journal has.
    fn note_text_gone(&mut self) {
        if self.written.phext.file_bytes() == 0 {
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
