//! Removes journals: of phexts without text, along with their file, and of phexts whose file has everything when journals
//! take too much space.
//!
//! The keys in such a journal are first written to the tenant's `.keys`, so that a write that is sent again is still
//! recognised. Many phexts share one job, and one sync of each file.

use std::io;

use sq_shared::phext_name::PhextName;

use crate::store::disk::{Disk, FileName, Identity, is_harmless};
use crate::store::job::{Job, Task};
use crate::store::journal::Journal;
use crate::store::open_phext::{Clock, OpenPhext};
use crate::store::reserve::Reserve;
use crate::store::retired_keys::NewKeys;
use crate::store::{Store, StoreError};

const PHEXTS_AT_ONCE: usize = 64;

/// A job with more keys than this takes no further phext.
const KEYS_AT_ONCE: usize = 8192;

/// Removes journals, and files without text.
#[derive(Debug)]
pub(super) struct RetireJob {
    keys: NewKeys,
    phexts: Vec<Retiring>,
}

/// A phext whose journal is to be removed.
#[derive(Debug)]
pub(super) struct Retiring {
    pub(super) name: PhextName,
    /// Its file, unless another program has changed it.
    pub(super) expected: Option<Identity>,
    /// Its file is removed too, because it has no text.
    pub(super) wants_no_file: bool,
}

/// The result of a [`RetireJob`].
#[derive(Debug)]
pub(super) struct Retired {
    /// The file that has the keys, if it is new or longer. The error says that it is as it was, and so are the phexts.
    keys: io::Result<Option<Journal>>,
    phexts: Vec<(PhextName, Removal)>,
}

/// What was done to a phext's files.
#[derive(Debug)]
pub(super) enum Removal {
    /// They were removed.
    Removed,
    /// Another program has changed the text: everything stays.
    ChangedByOther,
    /// The system refuses. The journal stays, and the file unless it was removed before.
    Refused { error: io::Error, is_text_removed: bool },
}

impl RetireJob {
    /// Does the work, and blocks until the disk has done it.
    pub(super) fn run(self, disk: &dyn Disk, reserve: &Reserve) -> io::Result<Retired> {
        let Self { keys, phexts } = self;
        let keys = keys.write(disk, reserve)?;
        if let Err(error) = &keys {
            let refused = || Removal::Refused { error: error.kind().into(), is_text_removed: false };
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
            // The text must be gone for good before its journal: a power cut could bring it back, without the delete.
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
    /// Whether there is a file without text to remove.
    fn has_file(&self) -> bool {
        self.wants_no_file && self.expected.is_some()
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

fn remove(disk: &dyn Disk, file: &FileName, is_text_removed: bool) -> io::Result<Removal> {
    match disk.remove(file) {
        Ok(()) => Ok(Removal::Removed),
        Err(error) if is_harmless(&error) => Ok(Removal::Refused { error, is_text_removed }),
        Err(error) => Err(error),
    }
}

impl Store {
    /// One job for all phexts that wait for it, and never two at a time: a new `.keys` must have the keys of all before.
    pub(super) fn next_retirement(&mut self, clock: &Clock) -> Option<Job> {
        if self.keys.is_retiring() {
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
        let keys = names.iter().filter_map(|name| Some((name, &self.cache.open(name)?.keys)));
        let keys = self.keys.begin_to_retire(keys, clock.now);
        let phexts = names.iter().filter_map(|name| Some(self.cache.open_mut(name)?.begin_to_retire()));
        let phexts = phexts.collect();
        Some(Job::new(&self.disk, &self.reserve, Task::Retire(RetireJob { keys, phexts })))
    }

    fn names_to_retire(&self, clock: &Clock) -> Vec<PhextName> {
        let (mut names, mut keys) = (Vec::new(), 0);
        for (name, open) in self.cache.active().filter(|(_, open)| open.may_retire(clock.now)) {
            if keys > KEYS_AT_ONCE || names.len() == PHEXTS_AT_ONCE {
                break;
            }
            keys += open.keys.len();
            names.push(name.clone());
        }
        names
    }

    /// The keys cannot be stored elsewhere, so every journal stays.
    fn refuse_retirement(&mut self, error: &StoreError, clock: &Clock) {
        let mut refused = 0_u64;
        self.cache.for_each_active(|_, open| {
            if open.may_retire(clock.now) {
                refused += u64::from(open.note_not_retired(clock));
            }
        });
        if refused > 0 {
            self.has_progress = true;
            log_refused(refused, error);
        }
    }

    /// Applies the result of a retirement.
    pub(super) fn finish_retirement(&mut self, retired: Retired, clock: &Clock) {
        let is_in_keys = retired.keys.is_ok();
        self.keys.end_retiring(retired.keys.ok().flatten());
        let (mut refused, mut first_error) = (0_u64, None);
        for (name, removal) in retired.phexts {
            let Some(open) = self.cache.open_mut(&name) else { continue };
            if is_in_keys {
                self.keys.take_over(&name, &open.keys, open.unwritten_keys(), clock.now);
            }
            if let Some(error) = open.note_retired(removal, clock) {
                refused += 1;
                first_error.get_or_insert(error);
            }
            self.note_files(&name);
            self.evict_others(&name);
        }
        if let Some(error) = first_error {
            log_refused(refused, &error);
        }
    }

    /// Enters the present lengths of a phext's files. One that has neither a text nor files leaves memory.
    pub(super) fn note_files(&mut self, name: &PhextName) {
        let Some(open) = self.cache.open(name) else { return };
        let files = (!open.is_gone()).then(|| OpenPhext::files(open));
        self.usage.set(name, files);
        match files {
            Some(_) => self.cache.recount(name),
            None => _ = self.cache.remove(name),
        }
    }
}

fn log_refused(phexts: u64, error: &dyn std::fmt::Display) {
    tracing::error!(phexts, %error, "failed to remove files that phexts do not need; retrying");
}
