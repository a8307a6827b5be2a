//! Whether a write may be made: the scroll is what the client expects, and quota and disk have room.

use std::io;

use sq_shared::phext_name::PhextName;

use crate::store::disk::Disk;
use crate::store::open_phext::{Clock, OpenPhext};
use crate::store::usage::cost;
use crate::store::{Expected, Store, StoreError, Write};

/// Room that a write leaves free on the disk beside that for its phext's next save: for records of deletes,
/// and for the blocks that files take beyond their bytes.
const SPARE_BYTES: u64 = 64 * 1024;

/// Most bytes of records that wait for the disk, all phexts together. Further writes wait before they are applied, so that
/// a disk that stalls does not fill memory. One record may be longer.
const QUEUED_BYTES: u64 = 32 * 1024 * 1024;

/// Below this much room on the disk, journals begin anew as soon as they can.
const TIGHT_BYTES: u64 = 1024 * 1024;

impl Store {
    /// A write that makes its phext no longer always passes: it is how a tenant gets below the quota.
    pub(super) fn check_quota(&mut self, before: u64, after: u64, clock: &Clock) -> Result<(), StoreError> {
        let Some(quota) = self.limits.quota_bytes.filter(|_| after > before) else { return Ok(()) };
        self.usage.keep_current(clock.now)?;
        let used = self.usage.used_bytes(Some(quota));
        let used_after = used.saturating_sub(cost(before, quota)).saturating_add(cost(after, quota));
        if used_after <= quota {
            return Ok(());
        }
        self.usage.check_again(clock.now)?;
        Err(StoreError::QuotaExceeded { used, quota })
    }

    /// The first text of a phext makes one more of them. A write that leaves only its key makes none.
    pub(super) fn check_count(
        &mut self,
        name: &PhextName,
        before: u64,
        after: u64,
        clock: &Clock,
    ) -> Result<(), StoreError> {
        let is_first = before == 0 && after > 0;
        let Some(limit) = self.limits.phexts.filter(|_| is_first) else { return Ok(()) };
        self.usage.keep_current(clock.now)?;
        // One in memory is among them already, if only for its key.
        let is_counted = self.cache.open(name).is_some();
        let phexts = self.usage.phexts().unwrap_or_default().saturating_sub(usize::from(is_counted));
        if phexts < limit {
            return Ok(());
        }
        self.usage.check_again(clock.now)?;
        let (used, quota) = (self.used_bytes(), self.limits.quota_bytes);
        Err(StoreError::TooManyPhexts { phexts, limit, used, quota })
    }

    /// A write that makes its phext longer is only taken while each phext can still be saved: a save needs a new
    /// file before it gives the old one's room back, so a disk filled to its last block could not be freed by
    /// deletes.
    pub(super) fn check_room(
        &mut self,
        name: &PhextName,
        before: u64,
        after: u64,
        clock: &Clock,
    ) -> Result<(), StoreError> {
        if after <= before {
            return Ok(());
        }
        // It knows the size of the largest phext.
        self.usage.keep_current(clock.now)?;
        if self.has_room(before, after)? {
            return Ok(());
        }
        self.usage.check_again(clock.now)?;
        // Saved, others may do with shorter files and journals, and so may this one.
        let is_own_dirty = self.cache.open_mut(name).is_some_and(|open| {
            open.hurry(clock.now);
            open.is_dirty() && !open.is_behind()
        });
        if self.hurry_others(name) || self.hurry_parked() || is_own_dirty {
            return Err(StoreError::NotYet);
        }
        let (free_bytes, needed_bytes) = (self.disk.free_bytes()?, self.needed_bytes(before, after));
        tracing::warn!(phext = %name, free_bytes, needed_bytes, "the disk has no room for a write and the next save");
        Err(self.disk_full())
    }

    fn has_room(&self, before: u64, after: u64) -> io::Result<bool> {
        Ok(self.disk.free_bytes()? >= self.needed_bytes(before, after))
    }

    /// A write waits while many bytes wait for the disk already.
    pub(super) fn check_queue(&self, text_bytes: u64) -> Result<(), StoreError> {
        let queued_bytes = self.queued_bytes();
        let fits = queued_bytes == 0 || queued_bytes.saturating_add(text_bytes) <= QUEUED_BYTES;
        if fits { Ok(()) } else { Err(StoreError::NotYet) }
    }

    pub(super) fn queued_bytes(&self) -> u64 {
        self.active_phexts().map(OpenPhext::queued_bytes).sum()
    }

    pub(super) fn active_phexts(&self) -> impl Iterator<Item = &OpenPhext> {
        self.active.iter().filter_map(|name| self.cache.open(name))
    }

    /// The record, a new file for the largest phext, and what is taken already.
    fn needed_bytes(&self, before: u64, after: u64) -> u64 {
        let next_bytes = self.usage.largest_bytes().max(after);
        self.promised_bytes()
            .saturating_add(next_bytes)
            .saturating_add(after.saturating_sub(before))
            .saturating_add(SPARE_BYTES)
    }

    /// Room that the disk still reports as free, and that records on their way and saves under way will take.
    fn promised_bytes(&self) -> u64 {
        self.saves_bytes().saturating_add(self.queued_bytes())
    }

    /// What the new files of the saves under way have.
    pub(super) fn saves_bytes(&self) -> u64 {
        self.active_phexts().map(OpenPhext::new_file_bytes).sum()
    }

    fn used_bytes(&self) -> u64 {
        self.usage.used_bytes(self.limits.quota_bytes)
    }

    /// Whether there is not room on the disk for the new files of two saves.
    pub(super) fn is_crowded(&self) -> bool {
        let both_bytes = self.usage.largest_bytes().saturating_add(TIGHT_BYTES);
        let needed_bytes = both_bytes.saturating_add(self.promised_bytes());
        self.disk.free_bytes().is_ok_and(|free_bytes| free_bytes < needed_bytes)
    }

    pub(super) fn disk_full(&self) -> StoreError {
        StoreError::DiskFull { used: self.used_bytes(), quota: self.limits.quota_bytes }
    }
}

/// Whether room on the disk is scarce.
pub(super) fn is_tight(disk: &dyn Disk) -> bool {
    disk.free_bytes().is_ok_and(|free_bytes| free_bytes < TIGHT_BYTES)
}

/// A scroll that is there may be written wherever it is. A new one costs breaks on the way to it, in the file of its phext.
pub(super) fn check_coordinate(scroll: &str, write: &Write, limit: Option<u32>) -> Result<(), StoreError> {
    let is_new = scroll.is_empty() && !write.edit.text().is_empty();
    let Some(limit) = limit.filter(|limit| is_new && write.at.largest_part() > *limit) else { return Ok(()) };
    Err(StoreError::TooFar { limit })
}

pub(super) fn check_expected(scroll: &str, expected: Option<&Expected>) -> Result<(), StoreError> {
    let is_met = match expected {
        None => true,
        Some(Expected::Something) => !scroll.is_empty(),
        Some(Expected::OneOf(checksums)) => {
            checksums.contains(&xxhash_rust::xxh3::xxh3_128(scroll.as_bytes()))
        }
    };
    if is_met { Ok(()) } else { Err(StoreError::NotAsExpected) }
}
