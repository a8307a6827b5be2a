//! Which phexts stay in memory: as many as fit, up to a number; the least recently used go first. One with something that
//! its file does not have, and whose save is not paid for yet, is parked: its journal has that, and it comes back when it
//! is due to be saved. On a full disk, where phexts cannot be saved, they may be more than fit.

use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::cache::Content;
use crate::store::disk::FileName;
use crate::store::open_phext::OpenPhext;
use crate::store::open_phext::parking::{Parked, ParkingRoom};
use crate::store::{Store, StoreError};

/// Most phexts in memory. Each holds its journal open, and a process has so many descriptors (4,096 for a worker,
/// see `sandbox/privileges.rs`): a client who writes to a thousand small phexts must not use them up.
pub(super) const OPEN_PHEXTS: usize = 1024;

/// Most bytes of texts that leave memory unsaved. A worker that ends must save them all, and has its drain for that.
const PARKED_BYTES: u64 = 1024 * 1024 * 1024;

impl Store {
    pub(super) fn forget(&mut self, name: &PhextName) {
        self.take_out(name);
    }

    fn take_out(&mut self, name: &PhextName) -> Option<Box<OpenPhext>> {
        let Some(Content::Open(open)) = self.cache.remove(name) else { return None };
        if let Some(budget) = open.budget_to_keep() {
            self.budgets.put(name.clone(), budget.clone(), Instant::now());
        }
        Some(open)
    }

    /// Makes room in memory for a phext that is about to be read. What must be saved before it can go is saved
    /// first.
    pub(super) fn make_room(&mut self, name: &PhextName) -> Result<(), StoreError> {
        let file = self.disk.identity(&FileName::Phext(name.clone()))?;
        let incoming = file.map_or(0, |file| file.bytes);
        self.evict(name, incoming, 1);
        if self.is_too_full(incoming, 1) && self.await_others(name) {
            return Err(StoreError::NotYet);
        }
        Ok(())
    }

    /// After a use: what does not fit any more leaves memory, at once or as soon as it is saved.
    pub(super) fn trim(&mut self, in_use: &PhextName) {
        self.evict(in_use, 0, 0);
        if self.is_too_full(0, 0) {
            self.await_others(in_use);
        }
    }

    fn evict(&mut self, in_use: &PhextName, incoming_bytes: u64, incoming_phexts: usize) {
        while self.is_too_full(incoming_bytes, incoming_phexts) {
            let is_needed = |name: &PhextName| name == in_use || self.is_awaited(name);
            let Some(oldest) = self.cache.oldest_idle(is_needed, self.room_to_park()) else { return };
            self.put_away(&oldest);
        }
    }

    /// How long a phext may be to leave memory unsaved; `None` when none may. A worker that ends saves everything anyway.
    fn room_to_park(&self) -> Option<ParkingRoom> {
        let bytes = PARKED_BYTES.saturating_sub(self.parked_bytes);
        (!self.is_closing).then(|| ParkingRoom { bytes, now: Instant::now() })
    }

    fn put_away(&mut self, name: &PhextName) {
        if let Some(parked) = self.take_out(name).and_then(|open| open.park()) {
            self.active.remove(name);
            self.parked_bytes += parked.files.text_bytes;
            self.parked.insert((parked.save_due, name.clone()));
            self.cache.insert(name.clone(), Content::Parked(Box::new(parked)));
        }
    }

    /// What is known of a phext that comes back into memory.
    pub(super) fn take_parked(&mut self, name: &PhextName) -> Option<Box<Parked>> {
        match self.cache.remove(name)? {
            Content::Parked(parked) => {
                self.parked_bytes = self.parked_bytes.saturating_sub(parked.files.text_bytes);
                self.parked.remove(&(parked.save_due, name.clone()));
                Some(parked)
            }
            Content::Open(_) | Content::Damaged(_) => None,
        }
    }

    /// Whether a parked phext must come back to be saved.
    pub(super) fn is_parked_due(&self) -> bool {
        let is_due = |(due, _): &(Instant, PhextName)| self.is_closing || *due <= Instant::now();
        self.parked.first().is_some_and(is_due)
    }

    /// Brings back a parked phext that is to be saved; one at a time, for others must leave memory for it.
    pub(super) fn open_due_parked(&mut self) {
        while self.is_parked_due() && !self.has_large_save() {
            let Some((_, name)) = self.parked.first().cloned() else { return };
            match self.refresh(&name) {
                // Another program may have changed its file, so that there is nothing to save: then it is the next one's turn.
                Ok(None) => {}
                Err(StoreError::NotYet) => return,
                // Its file has become a link, or damage is remembered and logged; any other error comes again with the
                // next request.
                Ok(Some(_)) | Err(_) => _ = self.take_parked(&name),
            }
        }
    }

    /// Whether a save is under way or due whose end must come before the next one. On a disk that refuses saves no phext is
    /// brought back for one, except at the end.
    fn has_large_save(&self) -> bool {
        let now = Instant::now();
        let is_due = |open: &OpenPhext| {
            let is_wanted = self.is_closing || open.save_due().is_some_and(|due| due <= now);
            open.is_saving() || open.is_worth_saving() && is_wanted
        };
        self.active_phexts().any(|open| {
            let is_large = !open.is_saved_at_once() && is_due(open);
            is_large || open.is_behind() && !self.is_closing
        })
    }

    /// Has parked phexts come back to be saved, for the room that their journals take; whether there are any.
    pub(super) fn hurry_parked(&mut self) -> bool {
        if self.active_phexts().any(OpenPhext::is_behind) {
            return false;
        }
        let now = Instant::now();
        for (_, name) in std::mem::take(&mut self.parked) {
            self.cache.set_save_due(&name, now);
            self.parked.insert((now, name));
        }
        !self.parked.is_empty()
    }

    fn is_too_full(&self, incoming_bytes: u64, incoming_phexts: usize) -> bool {
        let others_bytes = self.usage.memory_bytes().saturating_add(self.keys.memory_bytes());
        let held_bytes = self.cache.held_bytes().saturating_add(others_bytes);
        held_bytes.saturating_add(incoming_bytes) > self.limits.memory_bytes
            || self.cache.count() - self.parked.len() + incoming_phexts > OPEN_PHEXTS
    }

    /// Has all others saved that cannot be parked; whether there are any that have not left memory yet.
    fn await_others(&mut self, in_use: &PhextName) -> bool {
        let now = Instant::now();
        let mut is_any = false;
        for name in self.active.iter().filter(|name| *name != in_use) {
            let Some(open) = self.cache.open_mut(name) else { continue };
            if open.is_clean() || open.is_behind() {
                continue;
            }
            if self.is_closing || !open.will_park() {
                open.hurry(now);
            }
            is_any = true;
        }
        is_any
    }

    /// Has all others saved that can be; whether there are any.
    pub(super) fn hurry_others(&mut self, in_use: &PhextName) -> bool {
        let now = Instant::now();
        let others: Vec<PhextName> = self.active.iter().filter(|name| *name != in_use).cloned().collect();
        let mut is_any = false;
        for name in others {
            if let Some(open) = self.cache.open_mut(&name)
                && !open.is_clean()
                && !open.is_behind()
            {
                open.hurry(now);
                is_any = true;
            }
        }
        is_any
    }
}
