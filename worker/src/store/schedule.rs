//! Schedules the disk's work: which jobs are due, in which order saves run, and what their results change.

use std::io;
use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::admission::is_tight;
use crate::store::job::{Done, Finished, Job, Outcome, Task};
use crate::store::open_phext::{Clock, OpenPhext};
use crate::store::reading::Reads;
use crate::store::{CommitPoint, Store, StoreError, clock};

/// Most bytes of new files that saves write at once, beside the one that is alone in its kind.
const SAVES_AT_ONCE_BYTES: u64 = 16 * 1024 * 1024;

impl Store {
    /// The jobs that are due. Each must be run, and its result given to [`Store::finish`].
    pub fn next_jobs(&mut self) -> Vec<Job> {
        let mut jobs = Vec::new();
        while jobs.is_empty() && !self.is_idle() {
            self.reload_changed();
            self.load_long_journal();
            self.load_unsaved();
            let stuck = self.collect_jobs(&mut jobs);
            jobs.extend(self.next_reads());
            if stuck.is_empty() {
                break;
            }
            // Their journals have everything, and others need the memory.
            stuck.iter().for_each(|name| _ = self.cache.remove(name));
        }
        jobs
    }

    /// Adds what is due for the active phexts. Those that need nothing more are active no longer. At the end of the worker,
    /// gives those that cannot be saved.
    fn collect_jobs(&mut self, jobs: &mut Vec<Job>) -> Vec<PhextName> {
        let (clock, is_closing) = (clock(), self.is_closing);
        let is_one_at_a_time = self.lacks_space_for_two_saves();
        let next_alone = self.next_save_alone(clock.now, is_one_at_a_time);
        // Before phexts that have no other work become inactive.
        jobs.extend(self.next_retirement(&clock));
        let mut space_bytes = SAVES_AT_ONCE_BYTES.saturating_sub(self.new_files_bytes());
        let (disk, reserve) = (&self.disk, &self.reserve);
        let mut stuck = Vec::new();
        self.cache.retain_active(|name, open| {
            let (was_saving, file_bytes) = (open.is_saving(), open.phext().file_bytes());
            let is_free = !is_one_at_a_time && open.answers_wait_for_save() && file_bytes <= space_bytes;
            let work = open.next_work(&clock, is_free || next_alone.as_ref() == Some(name));
            jobs.extend(work.map(|work| Job::new(disk, reserve, Task::Phext(name.clone(), work))));
            if open.is_saving() && !was_saving {
                space_bytes = space_bytes.saturating_sub(file_bytes);
            }
            let is_given_up = is_closing && open.is_stuck();
            if is_given_up {
                stuck.push(name.clone());
            }
            is_given_up || !open.is_done()
        });
        stuck
    }

    /// The next of those saves that run one at a time. Saves that no request waits for always do, so that they leave the disk
    /// time for the journals. All saves do when the disk has little space, so that they need no more than one new file; then
    /// a save also waits for the space that a compaction is about to free.
    fn next_save_alone(&self, now: Instant, is_one_at_a_time: bool) -> Option<PhextName> {
        let is_under_way = |open: &OpenPhext| {
            let is_saving = open.is_saving() && (is_one_at_a_time || !open.answers_wait_for_save());
            is_saving || is_one_at_a_time && open.is_compacting()
        };
        if self.cache.active().any(|(_, open)| is_under_way(open)) {
            return None;
        }
        let wanted = |(name, open): (&PhextName, &OpenPhext)| {
            Some((!open.answers_wait_for_save(), open.save_wanted(now, self.is_closing)?, name.clone()))
        };
        self.cache.active().filter_map(wanted).min().map(|(.., name)| name)
    }

    /// What a refusal rests on: only writes are decided by states that are not durable yet.
    pub fn refusal_commit_points(&self, error: &StoreError) -> Vec<CommitPoint> {
        match error {
            StoreError::NotAsExpected
            | StoreError::KeyReused
            | StoreError::QuotaExceeded { .. }
            | StoreError::TooManyPhexts { .. } => {
                self.cache.active().filter_map(|(_, open)| open.commit_point()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Reads the phexts again whose files another program has changed during a save: their unsaved edits must not wait for
    /// the next request.
    fn reload_changed(&mut self) {
        let is_due = |open: &OpenPhext| open.must_reload && open.is_idle();
        let changed = self.cache.active().filter(|(_, open)| is_due(open));
        let changed: Vec<PhextName> = changed.map(|(name, _)| name.clone()).collect();
        for name in changed {
            // Damage is remembered and logged; any other error is reported to the next request.
            self.has_progress |= self.refresh(&name).is_ok();
        }
    }

    /// Whether [`Store::next_jobs`] has changed something that requests may wait for.
    pub fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_progress)
    }

    /// When to ask for jobs again even if nothing happens.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let is_under_way = |open: &OpenPhext| open.is_saving() || open.is_compacting();
        if self.is_in_doubt() || self.cache.active().any(|(_, open)| is_under_way(open)) {
            // The caller asks again at its end, and others may have to wait for it.
            return None;
        }
        // One that is due already waits for the end of other work.
        let unsaved = self.cache.unsaved.first().map(|(due, _)| *due).filter(|due| *due > Instant::now());
        // What is to be removed waits for the removal under way.
        let may_be_due = |open: &&OpenPhext| open.needs_save() || !self.keys.is_retiring();
        let active = self.cache.active().map(|(_, open)| open);
        active.filter(may_be_due).filter_map(OpenPhext::save_due).chain(unsaved).min()
    }

    /// Applies the result of a job. After an error of the disk the store is in doubt.
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
        let is_tight = open.may_compact() && is_tight(&*self.disk);
        open.compact_journal(is_tight);
        // Refused records are not in it any more.
        self.note_files(name);
        // What could not be evicted before may be evictable now.
        self.evict_others(name);
    }

    /// Saves everything: from now on all edits that are not saved are due. It is done when [`Store::is_idle`].
    pub fn close(&mut self) {
        self.is_closing = true;
        if let Some(reads) = &mut self.reads {
            reads.clear();
        }
        self.cache.for_each_active(|_, open| open.retry_save(Instant::now()));
    }

    /// Whether no job is due or under way, once [`Store::next_jobs`] has been called.
    pub fn is_idle(&self) -> bool {
        let is_reading = self.reads.as_ref().is_some_and(|reads| !reads.is_idle());
        self.is_in_doubt() || !(is_reading || self.is_work_due())
    }

    /// Whether [`Store::next_jobs`] may have a job. A read that is under way is no reason to call it.
    pub fn may_have_jobs(&self) -> bool {
        let is_read_due = self.reads.as_ref().is_some_and(Reads::is_any_due);
        !self.is_in_doubt() && (is_read_due || self.is_work_due())
    }

    fn is_work_due(&self) -> bool {
        self.cache.active().next().is_some()
            || self.wants_long_journals()
            || self.cache.is_unsaved_due(self.is_closing)
    }

    /// A job has ended without a result, which only a bug can do. What it did is known after a new start.
    pub fn note_lost_job(&mut self) {
        self.fail(&io::Error::other("a job ended without a result"));
    }
}
