//! The phexts in memory, what is remembered of those that were evicted unsaved, and what all of them take.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::Pending;
use crate::store::damage::Damage;
use crate::store::open_phext::OpenPhext;
use crate::store::open_phext::evicted::Evicted;
use crate::store::phext::Phext;
use crate::store::recovery::PhextFiles;
use crate::store::save_budget::Budgets;
use crate::store::usage::Files;

/// What is known of a phext.
#[derive(Debug)]
pub(super) enum Content {
    Open(Box<OpenPhext>),
    /// It was evicted before its file had all of its edits.
    Evicted(Box<Evicted>),
    /// Damage is remembered too: the files need not be read again to refuse the phext.
    Damaged(Box<DamagedPhext>),
}

/// A phext that is refused for as long as its files stay as they are.
#[derive(Debug)]
pub(super) struct DamagedPhext {
    pub(super) files: PhextFiles,
    pub(super) damage: Damage,
    /// The quota, on which some damage depends.
    pub(super) quota_bytes: Option<u64>,
}

/// Phexts by name, and names by last use, so that the least recently used one is found without a search.
///
/// Invariants: each name in `entries` is in `by_use` once. Each name in `active` is an open phext. `unsaved` has the evicted
/// phexts and no others, and `unsaved_bytes` is the sum of their texts.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<PhextName, Cached>,
    by_use: BTreeMap<u64, PhextName>,
    uses: u64,
    /// What all of them take in memory, and what they may.
    held_bytes: u64,
    pub(super) limit_bytes: u64,
    /// Those for which a job may be due or under way.
    active: BTreeSet<PhextName>,
    /// Those that were evicted unsaved, by when they must be saved.
    pub(super) unsaved: BTreeSet<(Instant, PhextName)>,
    pub(super) unsaved_bytes: u64,
    /// What is left to pay for saves of phexts that are not in memory.
    budgets: Budgets,
    /// What a phext without a file reads as.
    empty: Phext,
}

#[derive(Debug)]
struct Cached {
    content: Content,
    /// What it was counted with.
    bytes: u64,
    last_use: u64,
}

impl Cache {
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// How many there are, those that were evicted unsaved among them.
    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Notes a use if there is content by this name that will do, and gives whether there is.
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

    /// The phext of a name, when it is in memory.
    pub(super) fn open(&self, name: &PhextName) -> Option<&OpenPhext> {
        match self.get(name) {
            Some(Content::Open(open)) => Some(open),
            Some(Content::Evicted(_) | Content::Damaged(_)) | None => None,
        }
    }

    /// The same, to change it: [`Cache::recount`] must follow.
    pub(super) fn open_mut(&mut self, name: &PhextName) -> Option<&mut OpenPhext> {
        match self.entries.get_mut(name).map(|cached| &mut cached.content) {
            Some(Content::Open(open)) => Some(open),
            Some(Content::Evicted(_) | Content::Damaged(_)) | None => None,
        }
    }

    /// A phext with all its writes, durable or not.
    pub(super) fn latest(&self, name: &PhextName) -> &Phext {
        self.open(name).map_or(&self.empty, OpenPhext::phext)
    }

    /// A phext as it was last durable.
    pub(super) fn durable(&self, name: &PhextName) -> Pending<&Phext> {
        self.open(name).map_or_else(|| Pending::durable(&self.empty), OpenPhext::durable_phext)
    }

    /// The lengths of a phext's files once it is saved; `None` when the directory knows them better.
    pub(super) fn files(&self, name: &PhextName) -> Option<Files> {
        match self.get(name)? {
            Content::Open(open) => Some(open.files()),
            Content::Evicted(evicted) => Some(evicted.files),
            Content::Damaged(_) => None,
        }
    }

    /// Puts in what is known of a phext, as the one used last. One that comes back into memory continues with the same save
    /// budget, because the first save of a new one is free.
    pub(super) fn insert(&mut self, name: &PhextName, mut content: Content) {
        self.remove(name);
        self.uses += 1;
        match &mut content {
            Content::Open(open) => {
                if let Some(budget) = self.budgets.take(name) {
                    open.set_budget(budget);
                }
                // No other load has this number.
                open.load_id = self.uses;
                self.active.insert(name.clone());
            }
            Content::Evicted(evicted) => {
                self.unsaved_bytes += evicted.files.text_bytes;
                self.unsaved.insert((evicted.save_due, name.clone()));
            }
            Content::Damaged(_) => {}
        }
        let (bytes, last_use) = (content.memory_bytes(), self.uses);
        self.held_bytes += bytes;
        self.by_use.insert(last_use, name.clone());
        self.entries.insert(name.clone(), Cached { content, bytes, last_use });
    }

    /// Takes out whatever is known of a phext.
    pub(super) fn remove(&mut self, name: &PhextName) -> Option<Content> {
        let gone = self.entries.remove(name)?;
        self.held_bytes = self.held_bytes.saturating_sub(gone.bytes);
        self.by_use.remove(&gone.last_use);
        match &gone.content {
            Content::Open(open) => {
                self.active.remove(name);
                if let Some(budget) = open.budget_to_keep() {
                    self.budgets.put(name.clone(), budget.clone(), Instant::now());
                }
            }
            Content::Evicted(evicted) => {
                self.unsaved_bytes = self.unsaved_bytes.saturating_sub(evicted.files.text_bytes);
                self.unsaved.remove(&(evicted.save_due, name.clone()));
            }
            Content::Damaged(_) => {}
        }
        Some(gone.content)
    }

    pub(super) fn recount(&mut self, name: &PhextName) {
        let Some(cached) = self.entries.get_mut(name) else { return };
        let bytes = cached.content.memory_bytes();
        self.held_bytes = self.held_bytes.saturating_sub(cached.bytes) + bytes;
        cached.bytes = bytes;
    }

    /// All names, the least recently used first.
    pub(super) fn names(&self) -> impl Iterator<Item = &PhextName> {
        self.by_use.values()
    }

    /// A job may be due for this phext.
    pub(super) fn activate(&mut self, name: &PhextName) {
        if !self.active.contains(name) && self.open(name).is_some() {
            self.active.insert(name.clone());
        }
    }

    /// The phexts for which a job may be due or under way, in order of name.
    pub(super) fn active(&self) -> impl Iterator<Item = (&PhextName, &OpenPhext)> {
        self.active.iter().filter_map(|name| Some((name, self.open(name)?)))
    }

    /// Visits the same phexts, to change them.
    pub(super) fn for_each_active(&mut self, mut visit: impl FnMut(&PhextName, &mut OpenPhext)) {
        self.retain_active(|name, open| {
            visit(name, open);
            true
        });
    }

    /// Visits the same phexts, and keeps only those that are to be visited again.
    pub(super) fn retain_active(&mut self, mut is_active: impl FnMut(&PhextName, &mut OpenPhext) -> bool) {
        let entries = &mut self.entries;
        self.active.retain(|name| match entries.get_mut(name).map(|cached| &mut cached.content) {
            Some(Content::Open(open)) => is_active(name, open),
            Some(Content::Evicted(_) | Content::Damaged(_)) | None => false,
        });
    }

    /// Has all phexts that were evicted unsaved loaded again at once, to be saved.
    pub(super) fn save_evicted_soon(&mut self, now: Instant) {
        for (_, name) in std::mem::take(&mut self.unsaved) {
            if let Some(Content::Evicted(evicted)) =
                self.entries.get_mut(&name).map(|cached| &mut cached.content)
            {
                evicted.save_due = now;
                self.unsaved.insert((now, name));
            }
        }
    }
}

impl Content {
    pub(super) fn memory_bytes(&self) -> u64 {
        const KNOWN_BYTES: u64 = 1024;
        match self {
            Self::Open(open) => open.memory_bytes(),
            Self::Evicted(_) | Self::Damaged(_) => KNOWN_BYTES,
        }
    }
}
