//! How the files of phexts go that do without: those of a phext without text, and the journal of one whose file has
//! everything, when journals take more room than they may.
//!
//! The keys in such a journal go into the tenant's `.keys` first, so a write that comes again is still known. Many phexts
//! share one job, and one sync of each file.

use std::io;

use sq_shared::phext_name::PhextName;

use crate::store::disk::{Disk, FileName, Identity, is_harmless};
use crate::store::job::{Job, Task};
use crate::store::journal::Journal;
use crate::store::keys::NewKeys;
use crate::store::open_phext::{Clock, OpenPhext};
use crate::store::reserve::Reserve;
use crate::store::{Store, StoreError};

/// Most phexts of one job.
const PHEXTS_AT_ONCE: usize = 64;

/// A job with more keys than this takes no further phext.
const KEYS_AT_ONCE: usize = 8192;

/// Removes journals, and texts that are empty.
#[derive(Debug)]
pub(super) struct RetireJob {
    keys: NewKeys,
    phexts: Vec<Retiring>,
}

/// A phext whose journal goes.
#[derive(Debug)]
pub(super) struct Retiring {
    pub(super) name: PhextName,
    /// What its text is, unless another program has changed it.
    pub(super) expected: Option<Identity>,
    /// Its file goes too, because it has no text.
    pub(super) is_to_go: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Retired {
    /// The file that has the keys, if there is another one, or a longer one. The error says that it is as it was, and so
    /// are the phexts.
    keys: io::Result<Option<Journal>>,
    phexts: Vec<(PhextName, Removal)>,
}

/// What became of a phext's files.
#[derive(Debug)]
pub(super) enum Removal {
    /// They are gone.
    Removed,
    /// Another program has changed the text: everything stays.
    ChangedByOther,
    /// The system refuses. Everything stays, but that the text may be gone.
    Refused { error: io::Error, is_text_gone: bool },
}

impl RetireJob {
    /// Does it; it may take long.
    pub(super) fn run(self, disk: &dyn Disk, reserve: &Reserve) -> io::Result<Retired> {
        let Self { keys, phexts } = self;
        let keys = keys.write(disk, reserve)?;
        if let Err(error) = &keys {
            let refused = || Removal::Refused { error: error.kind().into(), is_text_gone: false };
            let phexts = phexts.into_iter().map(|retiring| (retiring.name, refused())).collect();
            return Ok(Retired { keys, phexts });
        }
        let mut removals = Vec::new();
        for retiring in &phexts {
            removals.push(retiring.remove_text(disk)?);
        }
        let is_removed = |removal: &Removal| matches!(removal, Removal::Removed);
        if phexts.iter().zip(&removals).any(|(retiring, removal)| retiring.has_file() && is_removed(removal))
        {
            // A journal must outlast its text: alone, the old text would come back with a power cut.
            disk.sync_directory()?;
        }
        for (retiring, removal) in phexts.iter().zip(&mut removals) {
            if is_removed(removal) {
                *removal = retiring.remove_journal(disk)?;
            }
        }
        let names = phexts.into_iter().map(|retiring| retiring.name);
        Ok(Retired { keys, phexts: names.zip(removals).collect() })
    }
}

impl Retiring {
    /// Whether there is a file without text to be removed.
    fn has_file(&self) -> bool {
        self.is_to_go && self.expected.is_some()
    }

    fn remove_text(&self, disk: &dyn Disk) -> io::Result<Removal> {
        let text = FileName::Phext(self.name.clone());
        if disk.identity(&text)? != self.expected {
            return Ok(Removal::ChangedByOther);
        }
        if self.has_file() { remove(disk, &text, false) } else { Ok(Removal::Removed) }
    }

    fn remove_journal(&self, disk: &dyn Disk) -> io::Result<Removal> {
        remove(disk, &FileName::Journal(self.name.clone()), self.has_file())
    }
}

fn remove(disk: &dyn Disk, file: &FileName, is_text_gone: bool) -> io::Result<Removal> {
    match disk.remove(file) {
        Ok(()) => Ok(Removal::Removed),
        Err(error) if is_harmless(&error) => Ok(Removal::Refused { error, is_text_gone }),
        Err(error) => Err(error),
    }
}

impl Store {
    /// One job for as many phexts as wait for it, and no other beside it: a new `.keys` must have the keys of all before.
    pub(super) fn next_retirement(&mut self, clock: &Clock) -> Option<Job> {
        if self.is_retiring {
            return None;
        }
        let names = self.names_to_retire(clock);
        if names.is_empty() {
            return None;
        }
        match self.load_keys(clock.now) {
            Ok(()) => {}
            Err(StoreError::NotYet) => return None,
            Err(error) => {
                self.refuse_retirement(&error, clock);
                return None;
            }
        }
        let keys = names.iter().filter_map(|name| Some((name, &self.cache.open(name)?.repeats)));
        let keys = self.keys.gather(keys, clock.now);
        let phexts = names.iter().filter_map(|name| Some(self.cache.open_mut(name)?.begin_to_retire()));
        let phexts = phexts.collect();
        self.is_retiring = true;
        let (disk, reserve) = (self.disk.clone(), self.reserve.clone());
        Some(Job { disk, reserve, task: Task::Retire(RetireJob { keys, phexts }) })
    }

    fn names_to_retire(&self, clock: &Clock) -> Vec<PhextName> {
        let (mut names, mut keys) = (Vec::new(), 0);
        for name in &self.active {
            let Some(open) = self.cache.open(name).filter(|open| open.may_retire(clock.now)) else {
                continue;
            };
            if keys > KEYS_AT_ONCE || names.len() == PHEXTS_AT_ONCE {
                break;
            }
            keys += open.repeats.len();
            names.push(name.clone());
        }
        names
    }

    /// The keys have no place to go to, so every journal stays.
    fn refuse_retirement(&mut self, error: &StoreError, clock: &Clock) {
        let mut refused = 0_u64;
        for name in &self.active {
            if let Some(open) = self.cache.open_mut(name)
                && open.may_retire(clock.now)
            {
                refused += u64::from(open.note_not_retired(clock));
            }
        }
        if refused > 0 {
            self.has_news = true;
            say_refused(refused, error);
        }
    }

    /// Takes in what came of a retirement.
    pub(super) fn finish_retirement(&mut self, retired: Retired, clock: &Clock) {
        self.is_retiring = false;
        let is_in_keys = retired.keys.is_ok();
        if let Ok(Some(file)) = retired.keys {
            self.keys.note_written(file);
        }
        let (mut refused, mut first_error) = (0_u64, None);
        for (name, removal) in retired.phexts {
            let Some(open) = self.cache.open_mut(&name) else { continue };
            if is_in_keys {
                self.keys.take_over(&name, &open.repeats, open.keys_on_their_way(), clock.now);
            }
            if let Some(error) = open.note_retired(removal, clock) {
                refused += 1;
                first_error.get_or_insert(error);
            }
            self.note_files(&name);
            self.trim(&name);
        }
        if let Some(error) = first_error {
            say_refused(refused, &error);
        }
    }

    /// Enters what the files of a phext have now. One that has neither a text nor files leaves memory.
    pub(super) fn note_files(&mut self, name: &PhextName) {
        let Some(open) = self.cache.open(name) else { return };
        let files = (!open.is_nothing()).then(|| OpenPhext::files(open));
        self.usage.set(name, files);
        match files {
            Some(_) => self.cache.recount(name),
            None => self.forget(name),
        }
    }
}

fn say_refused(phexts: u64, error: &dyn std::fmt::Display) {
    tracing::error!(phexts, %error, "failed to remove files of phexts that do without; they are tried again");
}
