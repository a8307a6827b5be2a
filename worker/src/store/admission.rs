//! Whether a write may be made: the scroll is what the client expects, and quota and disk have room.

use sq_shared::phext_name::PhextName;

use crate::store::open_phext::Clock;
use crate::store::usage::Usage;
use crate::store::{Expected, Store, StoreError};

/// Room that a write leaves free on the disk beside that for its phext's next save: for records of deletes,
/// and for the blocks that files take beyond their bytes.
const SPARE_BYTES: u64 = 64 * 1024;

impl Store {
    /// A write that makes its phext no longer always passes: it is how a tenant gets below the quota.
    pub(super) fn check_quota(&mut self, before: u64, after: u64, clock: &Clock) -> Result<(), StoreError> {
        let Some(quota) = self.limits.quota_bytes.filter(|_| after > before) else { return Ok(()) };
        let exceeds = |usage: &Usage| usage.used_bytes().saturating_sub(before).saturating_add(after) > quota;
        // Before a refusal one looks again: another program may have taken phexts away.
        if self.usage.is_stale(clock.now) || exceeds(&self.usage) {
            self.usage.list(&*self.disk, |name| self.cache.open(name).is_some(), clock.now)?;
        }
        if exceeds(&self.usage) {
            return Err(StoreError::QuotaExceeded { used: self.usage.used_bytes(), quota });
        }
        Ok(())
    }

    /// A write that makes its phext longer is only taken while the phext can still be saved with it: otherwise it
    /// could not be made shorter any more either.
    pub(super) fn check_room(
        &mut self,
        name: &PhextName,
        before: u64,
        after: u64,
        clock: &Clock,
    ) -> Result<(), StoreError> {
        if after <= before || self.disk.free_bytes()? >= after.saturating_add(SPARE_BYTES) {
            return Ok(());
        }
        // Saved, it may do with a shorter journal.
        if let Some(open) = self.cache.open_mut(name) {
            open.hurry(clock.now);
        }
        Err(self.disk_full())
    }

    pub(super) fn disk_full(&self) -> StoreError {
        StoreError::DiskFull { used: self.usage.used_bytes(), quota: self.limits.quota_bytes }
    }
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
