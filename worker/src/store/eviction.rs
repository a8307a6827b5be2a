//! Which phexts stay in memory: as many as fit, up to a number; the least recently used are evicted first. One that is not
//! saved, and whose save the budget does not allow yet, is evicted all the same: its journal has its edits, and it is loaded
//! again when its save is due. On a full disk, where no phext can be saved, there may be more than fit.

use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::cache::{Cache, Content};
use crate::store::disk::FileName;
use crate::store::open_phext::OpenPhext;
use crate::store::reading::Reads;
use crate::store::{Store, StoreError};

/// Most phexts in memory. Each holds its journal open, and a process has so many descriptors (4,096 for a worker,
/// see `sandbox/privileges.rs`): a client that writes to a thousand small phexts must not use them up.
pub(super) const OPEN_PHEXTS: usize = 1024;

/// Most bytes of texts that are evicted unsaved. A worker that ends must save them all before its drain is over.
const UNSAVED_BYTES: u64 = 1024 * 1024 * 1024;

/// What may not be evicted, and what else takes memory.
struct Pressure<'a> {
    /// The phext that a request is using.
    in_use: &'a PhextName,
    /// Knows which phexts were just read for a request that has not used them yet. If these could be evicted, requests would
    /// evict each other's phexts and never be served.
    reads: Option<&'a Reads>,
    /// What tables beside the phexts take.
    tables_bytes: u64,
    /// The bytes of a phext that is about to be read.
    incoming_bytes: Option<u64>,
    /// A worker that ends saves everything anyway.
    is_closing: bool,
}

impl Pressure<'_> {
    fn is_needed(&self, name: &PhextName) -> bool {
        name == self.in_use || self.reads.is_some_and(|reads| reads.is_awaited(name))
    }
}

impl Cache {
    fn is_too_full(&self, pressure: &Pressure<'_>) -> bool {
        let bytes = self.held_bytes().saturating_add(pressure.tables_bytes);
        let (incoming_bytes, incoming) = pressure.incoming_bytes.map_or((0, 0), |bytes| (bytes, 1));
        bytes.saturating_add(incoming_bytes) > self.limit_bytes
            || self.count() - self.unsaved.len() + incoming > OPEN_PHEXTS
    }

    /// Evicts until the rest fits, or nothing more can be evicted. Gives whether the rest fits.
    fn evict(&mut self, pressure: &Pressure<'_>) -> bool {
        while self.is_too_full(pressure) {
            let Some(name) = self.oldest_evictable(pressure).cloned() else { return false };
            if let Some(Content::Open(open)) = self.remove(&name)
                && let Some(evicted) = open.evict()
            {
                self.insert(&name, Content::Evicted(Box::new(evicted)));
            }
        }
        true
    }

    fn oldest_evictable(&self, pressure: &Pressure<'_>) -> Option<&PhextName> {
        let (left_bytes, now) = (UNSAVED_BYTES.saturating_sub(self.unsaved_bytes), Instant::now());
        let is_evictable = |name: &&PhextName| match self.get(name) {
            Some(Content::Open(open)) => {
                open.is_evictable() || !pressure.is_closing && open.may_leave_unsaved(left_bytes, now)
            }
            Some(Content::Damaged(_)) => true,
            Some(Content::Evicted(_)) | None => false,
        };
        self.names().filter(|name| !pressure.is_needed(name)).find(is_evictable)
    }

    /// Has phexts saved that cannot be evicted otherwise. Gives whether any will become evictable.
    fn save_for_memory(&mut self, pressure: &Pressure<'_>) -> bool {
        self.save_others(pressure.in_use, |open| pressure.is_closing || !open.can_leave_unsaved())
    }

    /// Has all others saved that can be. Gives whether there are any.
    pub(super) fn save_others_soon(&mut self, in_use: &PhextName) -> bool {
        self.save_others(in_use, |_| true)
    }

    fn save_others(&mut self, in_use: &PhextName, must_save: impl Fn(&OpenPhext) -> bool) -> bool {
        let (now, mut is_any) = (Instant::now(), false);
        self.for_each_active(|name, open| {
            if name != in_use && !open.is_evictable() && !open.has_save_failed() {
                is_any = true;
                if must_save(open) {
                    open.save_soon(now);
                }
            }
        });
        is_any
    }

    /// Whether a phext that was evicted unsaved must be loaded again, to be saved.
    pub(super) fn is_unsaved_due(&self, is_closing: bool) -> bool {
        self.unsaved.first().is_some_and(|(due, _)| is_closing || *due <= Instant::now())
    }

    /// Whether a save must end before an evicted phext is loaded for its own. On a disk that refuses saves no phext is
    /// loaded for one, except at the end.
    fn has_large_save(&self, is_closing: bool) -> bool {
        let now = Instant::now();
        let is_due = |open: &OpenPhext| {
            let is_wanted = is_closing || open.save_due().is_some_and(|due| due <= now);
            open.is_saving() || open.needs_save() && is_wanted
        };
        self.active().any(|(_, open)| {
            let is_large = !open.answers_wait_for_save() && is_due(open);
            is_large || open.has_save_failed() && !is_closing
        })
    }
}

impl Store {
    /// Frees memory for a phext that is about to be read. What cannot be evicted before it is saved is saved first.
    pub(super) fn evict_for(&mut self, name: &PhextName) -> Result<(), StoreError> {
        let file = self.disk.identity(&FileName::Phext(name.clone()))?;
        let incoming_bytes = Some(file.map_or(0, |file| file.bytes));
        if self.evict(name, incoming_bytes) { Err(StoreError::NotYet) } else { Ok(()) }
    }

    /// After a use: what does not fit any more is evicted, at once or as soon as it is saved.
    pub(super) fn evict_others(&mut self, in_use: &PhextName) {
        self.evict(in_use, None);
    }

    /// Gives whether others must be saved before all fit.
    fn evict(&mut self, in_use: &PhextName, incoming_bytes: Option<u64>) -> bool {
        let pressure = Pressure {
            in_use,
            reads: self.reads.as_ref(),
            tables_bytes: self.usage.memory_bytes().saturating_add(self.keys.memory_bytes()),
            incoming_bytes,
            is_closing: self.is_closing,
        };
        !self.cache.evict(&pressure) && self.cache.save_for_memory(&pressure)
    }

    /// Loads an evicted phext whose save is due; one at a time, for others must be evicted for it.
    pub(super) fn load_unsaved(&mut self) {
        while self.cache.is_unsaved_due(self.is_closing) && !self.cache.has_large_save(self.is_closing) {
            let Some((_, name)) = self.cache.unsaved.first().cloned() else { return };
            match self.refresh(&name) {
                // Another program may have changed its file, so that nothing is left to save: then the next one is loaded.
                Ok(None) => {}
                Err(StoreError::NotYet) => return,
                // Its file has become a link, or damage is remembered and logged; any other error is reported to the next
                // request.
                Ok(Some(_)) | Err(_) => _ = self.cache.remove(&name),
            }
        }
    }

    /// Has evicted phexts loaded and saved, for the space that their journals take. Gives whether there are any.
    pub(super) fn save_evicted_soon(&mut self) -> bool {
        if self.cache.active().any(|(_, open)| open.has_save_failed()) {
            return false;
        }
        self.cache.save_evicted_soon(Instant::now());
        !self.cache.unsaved.is_empty()
    }
}
