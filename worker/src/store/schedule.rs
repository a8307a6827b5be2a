//! Which work for the disk is due, whose turn it is, and what becomes of what came of it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::admission::is_tight;
use crate::store::job::{Done, Finished, Job, Outcome};
use crate::store::open_phext::{Clock, OpenPhext};
use crate::store::reading::Reads;
use crate::store::{Store, StoreError, Ticket, clock};

/// Most bytes of new files that are written at once, beside one whose turn it is.
const SAVES_AT_ONCE_BYTES: u64 = 16 * 1024 * 1024;

impl Store {
    /// What is to be done now. Each job must be run, and its result given to [`Store::finish`].
    pub fn next_jobs(&mut self) -> Vec<Job> {
        let mut jobs = Vec::new();
        while jobs.is_empty() && !self.is_at_rest() {
            self.read_superseded();
            self.open_long_journal();
            self.open_due_parked();
            let given_up = self.collect_jobs(&mut jobs);
            jobs.extend(self.next_reads());
            if given_up.is_empty() {
                break;
            }
            // Their journals have all of it, and others need the memory.
            given_up.iter().for_each(|name| self.forget(name));
        }
        jobs
    }

    /// Adds what is due for the active phexts, and takes those out that need nothing. Gives those that can be saved no more.
    fn collect_jobs(&mut self, jobs: &mut Vec<Job>) -> Vec<PhextName> {
        let (disk, reserve) = (Arc::clone(&self.disk), Arc::clone(&self.reserve));
        let (clock, is_closing) = (clock(), self.is_closing);
        let is_crowded = self.is_crowded();
        let turn = self.next_turn(clock.now, is_crowded);
        // Before those that have no job left are taken out.
        jobs.extend(self.next_retirement(&clock));
        let mut room_bytes = SAVES_AT_ONCE_BYTES.saturating_sub(self.saves_bytes());
        let (cache, mut given_up) = (&mut self.cache, Vec::new());
        self.active.retain(|name| {
            let Some(open) = cache.open_mut(name) else { return false };
            let (was_saving, file_bytes) = (open.is_saving(), open.phext.file_bytes());
            let is_free = !is_crowded && open.is_saved_at_once() && file_bytes <= room_bytes;
            jobs.extend(open.next_jobs(&disk, &reserve, &clock, is_free || turn.as_ref() == Some(name)));
            if open.is_saving() && !was_saving {
                room_bytes = room_bytes.saturating_sub(file_bytes);
            }
            let is_given_up = is_closing && open.is_stuck();
            if is_given_up {
                given_up.push(name.clone());
            }
            !(is_given_up || open.is_at_rest())
        });
        given_up
    }

    /// Whose turn it is to be saved, where saves take turns: those that nobody waits for always do, so that they
    /// leave the disk time for the journals; all do when the disk has little room, so that they take that of one
    /// new file. Then a save also waits for the room of a journal that is just being shortened.
    fn next_turn(&self, now: Instant, is_crowded: bool) -> Option<PhextName> {
        let is_under_way = |name: &PhextName| {
            self.cache.open(name).is_some_and(|open| {
                let is_saving = open.is_saving() && (is_crowded || !open.is_saved_at_once());
                is_saving || is_crowded && open.is_shortening()
            })
        };
        if self.active.iter().any(is_under_way) {
            return None;
        }
        let wanted = |name: &PhextName| {
            let open = self.cache.open(name)?;
            Some((!open.is_saved_at_once(), open.save_wanted(now, self.is_closing)?, name.clone()))
        };
        self.active.iter().filter_map(wanted).min().map(|(.., name)| name)
    }

    /// What a refusal rests on: only writes are decided by what is not durable yet.
    pub fn unsettled(&self, error: &StoreError) -> Vec<Ticket> {
        match error {
            StoreError::NotAsExpected
            | StoreError::KeyReused
            | StoreError::QuotaExceeded { .. }
            | StoreError::TooManyPhexts { .. } => {
                self.active.iter().filter_map(|name| self.cache.open(name)?.ticket()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Reads those anew whose files another program has changed during a save: their unsaved edits must not wait
    /// until somebody asks.
    fn read_superseded(&mut self) {
        let is_due = |name: &&PhextName| {
            self.cache.open(name).is_some_and(|open| open.is_superseded() && open.is_quiet())
        };
        let superseded: Vec<PhextName> = self.active.iter().filter(is_due).cloned().collect();
        for name in superseded {
            // Damage is remembered and logged; any other error comes again with the next request.
            self.has_news |= self.refresh(&name).is_ok();
        }
    }

    /// Whether [`Store::next_jobs`] has changed something that requests may wait for.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// When to ask for jobs again even if nothing happens.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let is_at_work = |open: &OpenPhext| open.is_saving() || open.is_shortening();
        let is_at_work = |name: &PhextName| self.cache.open(name).is_some_and(is_at_work);
        if self.is_in_doubt || self.active.iter().any(is_at_work) {
            // Its end is news of its own, and others may have to wait for it.
            return None;
        }
        // One that is due already waits for the end of other work.
        let parked = self.parked.first().map(|(due, _)| *due).filter(|due| *due > Instant::now());
        // What is to be removed waits for what is just being removed.
        let may_be_due = |open: &&OpenPhext| open.is_worth_saving() || !self.is_retiring;
        self.active_phexts().filter(may_be_due).filter_map(OpenPhext::save_due).chain(parked).min()
    }

    /// Takes in what came of a job. After a failure of the disk the store is in doubt.
    pub fn finish(&mut self, done: Done) {
        match done.0 {
            Ok(Finished::Phext(name, outcome)) => self.finish_phext(&name, outcome, &clock()),
            Ok(Finished::Retired(retired)) => self.finish_retirement(retired, &clock()),
            Ok(Finished::Read(done)) => self.finish_read(done),
            Err(error) => self.fail(&error),
        }
    }

    fn finish_phext(&mut self, name: &PhextName, outcome: Outcome, clock: &Clock) {
        let Some(open) = self.cache.open_mut(name) else { return };
        open.finish(outcome, clock);
        let is_tight = open.may_be_spent() && is_tight(&*self.disk);
        open.shorten_journal(is_tight);
        // Refused records are not in it any more.
        self.note_files(name);
        // What could not leave memory before may be able to now.
        self.trim(name);
    }

    /// Saves everything: from now on all that is not in its file is due. It is done when
    /// [`Store::is_at_rest`].
    pub fn close(&mut self) {
        self.is_closing = true;
        if let Some(reads) = &mut self.reads {
            reads.clear();
        }
        for name in &self.active {
            if let Some(open) = self.cache.open_mut(name) {
                open.retry(Instant::now());
            }
        }
    }

    /// Whether no job is due or under way, once [`Store::next_jobs`] has been asked.
    pub fn is_at_rest(&self) -> bool {
        let is_reading = self.reads.as_ref().is_some_and(|reads| !reads.is_idle());
        self.is_in_doubt || !(is_reading || self.is_work_due())
    }

    /// Whether [`Store::next_jobs`] may have a job to give. A read that is under way is no reason to ask it.
    pub fn may_have_jobs(&self) -> bool {
        let is_read_due = self.reads.as_ref().is_some_and(Reads::is_any_due);
        !self.is_in_doubt && (is_read_due || self.is_work_due())
    }

    fn is_work_due(&self) -> bool {
        !self.active.is_empty() || self.wants_long_journals() || self.is_parked_due()
    }

    /// A job has ended without a result, which only a mistake of ours can do. What it did is known after a new start.
    pub fn note_lost_job(&mut self) {
        self.fail(&io::Error::other("a job ended without a result"));
    }
}
