//! How a phext's files go when nobody needs them any more: those of a phext without text, and the journal of one whose file
//! has everything, when journals take more room than they may.
//!
//! The keys in such a journal go into the tenant's `.keys` first, so a write that comes again is still known. Many phexts
//! share one job, and one sync of each file.

use std::io;

use sq_shared::phext_name::PhextName;

use crate::store::Store;
use crate::store::disk::{Disk, FileName, Identity, is_unwritable};
use crate::store::job::{Job, Task};
use crate::store::journal::Journal;
use crate::store::keys::NewKeys;
use crate::store::open_phext::Clock;
use crate::store::recovery::RecoveryError;
use crate::store::reserve::Reserve;

/// Most phexts of one job.
const PHEXTS_AT_ONCE: usize = 64;

/// Removes journals, and texts that are empty.
#[derive(Debug)]
pub(super) struct Retirement {
    keys: NewKeys,
    phexts: Vec<Retiring>,
}

/// A phext whose journal goes.
#[derive(Debug)]
pub(super) struct Retiring {
    pub(super) name: PhextName,
    /// What its text is, if nobody else has changed it.
    pub(super) expected: Option<Identity>,
    /// It has no text, so its file goes too.
    pub(super) is_empty: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Retired {
    /// Where the keys are now; `None` when there were none.
    file: Option<Journal>,
    phexts: Vec<(PhextName, Departure)>,
}

/// What became of a phext's files.
#[derive(Debug)]
pub(super) enum Departure {
    /// They are gone.
    Gone,
    /// Another program has changed the text: everything stays.
    Foreign,
    /// The system refuses. Everything stays, but that the text may be gone.
    Refused { error: io::Error, is_text_gone: bool },
}

impl Retirement {
    /// Does it; it may take long.
    pub(super) fn run(self, disk: &dyn Disk, reserve: &Reserve) -> io::Result<Retired> {
        let Self { keys, phexts } = self;
        let file = match keys.write(disk, reserve)? {
            Ok(file) => file,
            Err(error) => {
                let refused = |retiring: Retiring| (retiring.name, Departure::refused(error.kind(), false));
                return Ok(Retired { file: None, phexts: phexts.into_iter().map(refused).collect() });
            }
        };
        let mut departures = Vec::new();
        for retiring in &phexts {
            departures.push(retiring.remove_text(disk)?);
        }
        if phexts.iter().any(Retiring::removes_text) {
            // A journal must outlast its text: alone, the old text would come back with a power cut.
            disk.sync_directory()?;
        }
        for (retiring, departure) in phexts.iter().zip(&mut departures) {
            if let Departure::Gone = departure {
                *departure = retiring.remove_journal(disk)?;
            }
        }
        let names = phexts.into_iter().map(|retiring| retiring.name);
        Ok(Retired { file, phexts: names.zip(departures).collect() })
    }
}

impl Retiring {
    fn removes_text(&self) -> bool {
        self.is_empty && self.expected.is_some()
    }

    fn remove_text(&self, disk: &dyn Disk) -> io::Result<Departure> {
        let text = FileName::Phext(self.name.clone());
        if disk.identity(&text)? != self.expected {
            return Ok(Departure::Foreign);
        }
        if self.removes_text() { remove(disk, &text, false) } else { Ok(Departure::Gone) }
    }

    fn remove_journal(&self, disk: &dyn Disk) -> io::Result<Departure> {
        remove(disk, &FileName::Journal(self.name.clone()), self.removes_text())
    }
}

impl Departure {
    fn refused(kind: io::ErrorKind, is_text_gone: bool) -> Self {
        Self::Refused { error: kind.into(), is_text_gone }
    }
}

fn remove(disk: &dyn Disk, file: &FileName, is_text_gone: bool) -> io::Result<Departure> {
    match disk.remove(file) {
        Ok(()) => Ok(Departure::Gone),
        Err(error) if is_unwritable(&error) => Ok(Departure::Refused { error, is_text_gone }),
        Err(error) => Err(error),
    }
}

impl Store {
    /// One job for as many phexts as wait for it, and no other beside it: a new `.keys` must have the keys of all before.
    pub(super) fn next_retirement(&mut self, clock: &Clock) -> Option<Job> {
        if self.is_retiring {
            return None;
        }
        let (active, cache) = (&self.active, &self.cache);
        let may_retire = |name: &&PhextName| cache.open(name).is_some_and(|open| open.may_retire(clock.now));
        let names: Vec<PhextName> = active.iter().filter(may_retire).take(PHEXTS_AT_ONCE).cloned().collect();
        if names.is_empty() {
            return None;
        }
        if let Err(error) = self.keys.load(&*self.disk, clock.now) {
            self.refuse_retirement(&names, &error, clock);
            return None;
        }
        let keys = names.iter().filter_map(|name| Some((name, &self.cache.open(name)?.repeats)));
        let keys = self.keys.gather(keys, clock.now);
        let phexts = names.iter().filter_map(|name| Some(self.cache.open_mut(name)?.begin_to_retire()));
        let phexts = phexts.collect();
        self.is_retiring = true;
        let (disk, reserve) = (self.disk.clone(), self.reserve.clone());
        Some(Job { disk, reserve, task: Task::Retire(Retirement { keys, phexts }) })
    }

    /// The keys have no place to go to, so the journals stay.
    fn refuse_retirement(&mut self, names: &[PhextName], error: &RecoveryError, clock: &Clock) {
        let error = io::Error::other(error.to_string());
        for name in names {
            if let Some(open) = self.cache.open_mut(name) {
                open.fall_behind(&error, clock);
            }
        }
    }

    /// Takes in what came of a retirement.
    pub(super) fn finish_retirement(&mut self, retired: Retired, clock: &Clock) {
        self.is_retiring = false;
        if let Some(file) = retired.file {
            self.keys.note_written(file);
        }
        for (name, departure) in retired.phexts {
            let Some(open) = self.cache.open_mut(&name) else { continue };
            if let Some(keys) = open.note_retired(departure, clock) {
                self.keys.take_over(&name, keys, clock.now);
            }
            if open.is_nothing() {
                self.forget(&name);
                self.usage.set(&name, None);
            } else {
                let files = open.files();
                self.usage.set(&name, Some(files));
                self.cache.recount(&name);
            }
        }
    }
}
