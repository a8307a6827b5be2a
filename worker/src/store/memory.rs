//! Which phexts stay in memory: as many as fit, up to a number; the least recently used go first, and never one that has
//! something its file does not have. So on a full disk, where phexts cannot be saved, they may be more than fit.

use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::disk::FileName;
use crate::store::{Store, StoreError};

/// Most phexts in memory. Each holds its journal open, and a process has so many descriptors (4,096 for a worker,
/// see `sandbox/privileges.rs`): a client who writes to a thousand small phexts must not use them up.
pub(super) const OPEN_PHEXTS: usize = 1024;

impl Store {
    pub(super) fn forget(&mut self, name: &PhextName) {
        self.cache.remove(name);
    }

    /// Makes room in memory for a phext that is about to be read. What must be saved before it can go is saved
    /// first.
    pub(super) fn make_room(&mut self, name: &PhextName) -> Result<(), StoreError> {
        let file = self.disk.identity(&FileName::Phext(name.clone()))?;
        let incoming = file.map_or(0, |file| file.bytes);
        self.evict(name, incoming, 1);
        if self.is_too_full(incoming, 1) && self.hurry_others(name) {
            return Err(StoreError::NotYet);
        }
        Ok(())
    }

    /// After a use: what does not fit any more leaves memory, at once or as soon as it is saved.
    pub(super) fn trim(&mut self, in_use: &PhextName) {
        self.evict(in_use, 0, 0);
        if self.is_too_full(0, 0) {
            self.hurry_others(in_use);
        }
    }

    fn evict(&mut self, in_use: &PhextName, incoming_bytes: u64, incoming_phexts: usize) {
        while self.is_too_full(incoming_bytes, incoming_phexts) {
            let Some(oldest) = self.cache.oldest_clean(in_use) else { return };
            self.forget(&oldest);
        }
    }

    fn is_too_full(&self, incoming_bytes: u64, incoming_phexts: usize) -> bool {
        let others_bytes = self.usage.memory_bytes().saturating_add(self.keys.memory_bytes());
        let held_bytes = self.cache.held_bytes().saturating_add(others_bytes);
        held_bytes.saturating_add(incoming_bytes) > self.limits.memory_bytes
            || self.cache.count() + incoming_phexts > OPEN_PHEXTS
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
