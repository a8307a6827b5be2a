//! How a phext leaves memory before its file has all of its edits. Its synced journal has the rest, so it can be loaded from
//! both. If it had to be saved whenever memory is needed, a few small writes could write long files again and again.

use std::time::Instant;

use super::OpenPhext;
use super::durability::Position;
use super::journal_writer::JournalState;
use super::save::Schedule;
use crate::store::disk::Identity;
use crate::store::journal::{Base, Journal};
use crate::store::record::Generation;
use crate::store::save_budget::{SMALLEST_WRITE_BYTES, SaveBudget};
use crate::store::usage::Files;

/// What is remembered of a phext that was evicted before it was saved.
#[derive(Debug)]
pub(in crate::store) struct Evicted {
    pub(in crate::store) file: Option<Identity>,
    base: Base,
    /// Its journal is durable up to here: this worker has synced it.
    generation: Generation,
    journal_bytes: u64,
    position: Position,
    last_sequence: u64,
    is_deferred: bool,
    /// When it must be loaded again, to be saved.
    pub(in crate::store) save_due: Instant,
    pub(in crate::store) files: Files,
    pub(in crate::store) scrolls: usize,
}

impl OpenPhext {
    /// Whether it can be evicted unsaved once no job is under way.
    pub(in crate::store) fn can_leave_unsaved(&self) -> bool {
        !self.answers_wait_for_save() && !self.has_save_failed() && !self.must_reload
    }

    /// Whether it can be evicted unsaved now, if its text has no more than these bytes. One whose save is due stays for that.
    pub(in crate::store) fn may_leave_unsaved(&self, limit_bytes: u64, now: Instant) -> bool {
        let is_due_later = self.save.schedule.at().is_some_and(|due| due > now);
        let fits = self.phext().file_bytes() <= limit_bytes;
        fits && is_due_later
            && self.can_leave_unsaved()
            && self.needs_save()
            && self.is_idle()
            && self.journal.current().is_some()
    }

    /// What must be remembered of it; `None` when its file has everything.
    pub(in crate::store) fn evict(&self) -> Option<Evicted> {
        let save_due = self.save.schedule.at().filter(|_| self.is_dirty())?;
        let Journal { generation, bytes, .. } = self.journal.current()?;
        Some(Evicted {
            file: self.file,
            base: self.durability.base,
            generation: *generation,
            journal_bytes: *bytes,
            position: self.durability.latest.position,
            last_sequence: self.durability.last_sequence,
            is_deferred: matches!(self.save.schedule, Schedule::Deferred(_)),
            save_due,
            files: self.files(),
            scrolls: self.phext().scroll_count(),
        })
    }

    /// Continues as it was when it was evicted, if its files are the same. Otherwise it is what a new start would find.
    pub(in crate::store) fn resume(&mut self, evicted: &Evicted) {
        let Some(journal) = self.journal.found(evicted.generation, evicted.journal_bytes) else {
            let bytes = evicted.journal_bytes;
            return tracing::error!(
                phext = %self.name, bytes,
                "another program replaced a journal; the writes that only the old journal had are lost"
            );
        };
        if self.file != evicted.file || self.durability.base != evicted.base {
            return;
        }
        self.journal.state = JournalState::Current(journal);
        self.durability.resume(evicted.position, evicted.last_sequence);
        let due = evicted.save_due;
        self.save.schedule = if evicted.is_deferred { Schedule::Deferred(due) } else { Schedule::Due(due) };
        self.advance_durable();
    }

    /// What it has left to pay for saves, if that matters for its size, or for that of its last save.
    pub(in crate::store) fn budget_to_keep(&self) -> Option<&SaveBudget> {
        let bytes = self.phext().file_bytes().max(self.save.budget.last_save_bytes);
        (bytes > SMALLEST_WRITE_BYTES).then_some(&self.save.budget)
    }

    /// Continues with the budget that it had when it was evicted.
    pub(in crate::store) fn set_budget(&mut self, budget: SaveBudget) {
        self.save.budget = budget;
    }
}
