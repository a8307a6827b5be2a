//! How a phext leaves memory before its file has everything. Its journal has the rest, so it can be brought back from
//! both; to save it only because memory is needed would let a few small writes write long files again and again.

use std::sync::Arc;
use std::time::Instant;

use super::{JournalState, OpenPhext};
use crate::store::disk::Identity;
use crate::store::journal::{Base, Journal};
use crate::store::record::Generation;
use crate::store::save_budget::{SMALLEST_WRITE_BYTES, SaveBudget};
use crate::store::usage::Files;

/// What is known of a phext that has left memory unsaved.
#[derive(Debug)]
pub(in crate::store) struct Parked {
    pub(in crate::store) file: Option<Identity>,
    base: Base,
    /// Its journal is durable up to here: this worker has synced it.
    generation: Generation,
    journal_bytes: u64,
    last_sequence: u64,
    last_edit: u64,
    logged: u64,
    is_deferred: bool,
    /// When it must come back, to be saved.
    pub(in crate::store) save_due: Instant,
    pub(in crate::store) files: Files,
    pub(in crate::store) scrolls: usize,
}

/// What may leave memory unsaved.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct ParkingRoom {
    /// A text of so many bytes at most.
    pub(in crate::store) bytes: u64,
    pub(in crate::store) now: Instant,
}

impl OpenPhext {
    /// Whether it may leave memory unsaved, once no job is under way.
    pub(in crate::store) fn will_park(&self) -> bool {
        !self.is_saved_at_once() && !self.is_behind && !self.is_superseded
    }

    /// Whether it may leave memory unsaved now. One that is due to be saved stays for that.
    pub(in crate::store) fn may_park(&self, room: ParkingRoom) -> bool {
        let is_in_no_hurry = self.save_due.is_some_and(|due| due > room.now);
        let fits = self.phext.file_bytes() <= room.bytes;
        fits && is_in_no_hurry
            && self.will_park()
            && self.is_worth_saving()
            && self.is_quiet()
            && self.has_current_journal()
    }

    /// The journal that it had, if that is what a new start finds.
    fn journal_of(&self, parked: &Parked) -> Option<Journal> {
        let (file, generation, bytes) = match &self.journal {
            JournalState::Superseded { tail, .. } => (&tail.file, tail.header.generation, tail.end),
            JournalState::Current(journal) => (&journal.file, journal.generation, journal.bytes),
            JournalState::None | JournalState::Spent { .. } => return None,
        };
        let is_same = generation == parked.generation && bytes == parked.journal_bytes;
        is_same.then(|| Journal::resume(Arc::clone(file), generation, bytes))
    }

    /// What it has left to pay for saves, if that matters for its size, or for that of its last save.
    pub(in crate::store) fn budget_to_keep(&self) -> Option<&SaveBudget> {
        let bytes = self.phext.file_bytes().max(self.budget.last_save_bytes());
        (bytes > SMALLEST_WRITE_BYTES).then_some(&self.budget)
    }

    /// Goes on with the budget that it had when it left memory.
    pub(in crate::store) fn set_budget(&mut self, budget: SaveBudget) {
        self.budget = budget;
    }

    fn has_current_journal(&self) -> bool {
        matches!(self.journal, JournalState::Current(_))
    }

    /// What must be known of it to bring it back; `None` when its file has everything.
    pub(in crate::store) fn park(self) -> Option<Parked> {
        let files = self.files();
        let save_due = self.save_due.filter(|_| self.is_dirty())?;
        let JournalState::Current(Journal { generation, bytes, .. }) = self.journal else { return None };
        Some(Parked {
            file: self.file,
            base: self.base,
            generation,
            journal_bytes: bytes,
            last_sequence: self.last_sequence,
            last_edit: self.last_edit,
            logged: self.logged,
            is_deferred: self.is_deferred,
            save_due,
            files,
            scrolls: self.phext.scroll_count(),
        })
    }

    /// Goes on as it left memory, if its files are as they were. Otherwise it is what a new start finds.
    pub(in crate::store) fn unpark(&mut self, parked: Parked) {
        let Some(journal) = self.journal_of(&parked) else {
            let bytes = parked.journal_bytes;
            return tracing::error!(
                phext = %self.name, bytes,
                "the journal is not the one that was there: another program took it away, and the writes that only it had"
            );
        };
        if self.file != parked.file || self.base != parked.base {
            return;
        }
        self.journal = JournalState::Current(journal);
        self.last_sequence = self.last_sequence.max(parked.last_sequence);
        self.last_edit = parked.last_edit;
        (self.logged, self.synced) = (parked.logged, parked.logged);
        self.is_deferred = parked.is_deferred;
        self.save_due = Some(parked.save_due);
        self.written = self.now();
        self.durable = None;
        self.note_durable();
    }
}
