//! The phexts in memory, which was used last, and what they take all together.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::damage::Damage;
use crate::store::open_phext::OpenPhext;
use crate::store::open_phext::parking::{Parked, ParkingRoom};
use crate::store::recovery::PhextFiles;
use crate::store::usage::Files;

/// What is known of a phext.
#[derive(Debug)]
pub(super) enum Content {
    Open(Box<OpenPhext>),
    /// It has left memory, and its file does not have all of it.
    Parked(Box<Parked>),
    /// Damage is remembered too: the files need not be read again to refuse them.
    Damaged(Box<DamagedPhext>),
}

/// A phext that is refused for as long as its files stay as they are.
#[derive(Debug)]
pub(super) struct DamagedPhext {
    pub(super) files: PhextFiles,
    pub(super) damage: Damage,
    /// The quota, which some damage hangs on.
    pub(super) quota_bytes: Option<u64>,
}

/// Phexts by name, and names by last use: whoever goes first is found without a search.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<PhextName, Cached>,
    by_use: BTreeMap<u64, PhextName>,
    held_bytes: u64,
    uses: u64,
}

#[derive(Debug)]
struct Cached {
    content: Content,
    /// What it was counted with.
    bytes: u64,
    last_use: u64,
}

impl Cache {
    /// What all of them take.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Notes a use.
    pub(super) fn touch(&mut self, name: &PhextName) {
        self.touch_if(name, |_| true);
    }

    /// Notes a use, if there is something by this name that will do.
    pub(super) fn touch_if(&mut self, name: &PhextName, will_do: impl FnOnce(&Content) -> bool) -> bool {
        let Some(cached) = self.entries.get_mut(name).filter(|cached| will_do(&cached.content)) else {
            return false;
        };
        // As a rule it is the one that was used last.
        if cached.last_use != self.uses {
            self.uses += 1;
            if let Some(name) = self.by_use.remove(&cached.last_use) {
                self.by_use.insert(self.uses, name);
            }
            cached.last_use = self.uses;
        }
        true
    }

    pub(super) fn get(&self, name: &PhextName) -> Option<&Content> {
        self.entries.get(name).map(|cached| &cached.content)
    }

    /// The phext of a name, when it can be used.
    pub(super) fn open(&self, name: &PhextName) -> Option<&OpenPhext> {
        match self.get(name) {
            Some(Content::Open(open)) => Some(open),
            Some(Content::Parked(_) | Content::Damaged(_)) | None => None,
        }
    }

    /// What the files of a phext have, or will have once it is saved; `None` when the directory knows it better.
    pub(super) fn files(&self, name: &PhextName) -> Option<Files> {
        match self.get(name)? {
            Content::Open(open) => Some(open.files()),
            Content::Parked(parked) => Some(parked.files),
            Content::Damaged(_) => None,
        }
    }

    /// The same, to change it: [`Cache::recount`] must follow.
    pub(super) fn open_mut(&mut self, name: &PhextName) -> Option<&mut OpenPhext> {
        match self.entries.get_mut(name).map(|cached| &mut cached.content) {
            Some(Content::Open(open)) => Some(open),
            Some(Content::Parked(_) | Content::Damaged(_)) | None => None,
        }
    }

    /// Changes when a parked phext must be saved.
    pub(super) fn set_save_due(&mut self, name: &PhextName, due: Instant) {
        if let Some(Content::Parked(parked)) = self.entries.get_mut(name).map(|cached| &mut cached.content) {
            parked.save_due = due;
        }
    }

    /// Puts a phext in, as the one used last.
    pub(super) fn insert(&mut self, name: PhextName, content: Content) {
        self.remove(&name);
        self.uses += 1;
        let (bytes, last_use) = (content.memory_bytes(), self.uses);
        self.held_bytes += bytes;
        self.by_use.insert(last_use, name.clone());
        self.entries.insert(name, Cached { content, bytes, last_use });
    }

    pub(super) fn remove(&mut self, name: &PhextName) -> Option<Content> {
        let gone = self.entries.remove(name)?;
        self.held_bytes = self.held_bytes.saturating_sub(gone.bytes);
        self.by_use.remove(&gone.last_use);
        Some(gone.content)
    }

    /// Counts anew what a phext takes.
    pub(super) fn recount(&mut self, name: &PhextName) {
        let Some(cached) = self.entries.get_mut(name) else { return };
        let bytes = cached.content.memory_bytes();
        self.held_bytes = self.held_bytes.saturating_sub(cached.bytes) + bytes;
        cached.bytes = bytes;
    }

    /// The least recently used that may leave memory, apart from those that are needed there.
    pub(super) fn oldest_idle(
        &self,
        is_needed: impl Fn(&PhextName) -> bool,
        parking: Option<ParkingRoom>,
    ) -> Option<PhextName> {
        let is_idle = |name: &&PhextName| match self.get(name) {
            Some(Content::Open(open)) => open.is_clean() || parking.is_some_and(|room| open.may_park(room)),
            Some(Content::Damaged(_)) => true,
            Some(Content::Parked(_)) | None => false,
        };
        self.by_use.values().filter(|name| !is_needed(name)).find(is_idle).cloned()
    }

    /// All names, the least recently used first.
    pub(super) fn names(&self) -> impl Iterator<Item = &PhextName> {
        self.by_use.values()
    }
}

impl Content {
    pub(super) fn memory_bytes(&self) -> u64 {
        const KNOWN_BYTES: u64 = 1024;
        match self {
            Self::Open(open) => open.memory_bytes(),
            Self::Parked(_) | Self::Damaged(_) => KNOWN_BYTES,
        }
    }
}
