//! Whether a write may be made: the scroll is what the client expects, and the disk and the queues have space. (`usage.rs`
//! checks the quota, `journal_space.rs` the journals.)

use sq_shared::phext_name::PhextName;

use crate::store::disk::Disk;
use crate::store::open_phext::{Clock, OpenPhext};
use crate::store::{Expected, Store, StoreError, Write};

/// Space that a write leaves free on the disk beside that for its phext's next save: for the records of deletes, and for the
/// blocks that files take beyond their bytes.
const SPARE_BYTES: u64 = 64 * 1024;

/// Most bytes of records that wait for the disk, all phexts together. Further writes wait before they are applied, so a
/// stalled disk does not fill the memory. One record may be longer.
const QUEUED_BYTES: u64 = 32 * 1024 * 1024;

/// With less free space than this on the disk, journals are compacted as soon as they can be.
const TIGHT_BYTES: u64 = 1024 * 1024;

impl Store {
    /// A write that makes its phext longer is only taken while each phext can still be saved: a save needs a new file before
    /// it gives the old one's space back, so deletes could not free a disk that is filled to its last block.
    pub(super) fn check_disk_space(
        &mut self,
        name: &PhextName,
        before: u64,
        after: u64,
        clock: &Clock,
    ) -> Result<(), StoreError> {
        if after <= before {
            return Ok(());
        }
        // It knows the length of the longest text.
        self.usage.keep_current(clock.now)?;
        let needed_bytes = self.needed_bytes(before, after);
        if self.disk.free_bytes()? >= needed_bytes {
            return Ok(());
        }
        self.usage.scan_before_refusal(clock.now)?;
        // After a save, others may need less space for their files and journals, and so may this one.
        let is_own_dirty = self.cache.open_mut(name).is_some_and(|open| {
            open.save_soon(clock.now);
            open.is_dirty() && !open.has_save_failed()
        });
        if self.cache.save_others_soon(name) || self.save_evicted_soon() || is_own_dirty {
            return Err(StoreError::NotYet);
        }
        let free_bytes = self.disk.free_bytes()?;
        tracing::warn!(phext = %name, free_bytes, needed_bytes, "the disk has no space for a write and the next save");
        Err(self.usage.disk_full())
    }

    /// The record, a new file for the longest text, and what is promised already.
    fn needed_bytes(&self, before: u64, after: u64) -> u64 {
        let next_bytes = self.usage.largest_bytes().max(after);
        self.promised_bytes()
            .saturating_add(next_bytes)
            .saturating_add(after.saturating_sub(before))
            .saturating_add(SPARE_BYTES)
    }

    /// Space that is still free, and that queued records and saves under way will take.
    fn promised_bytes(&self) -> u64 {
        self.new_files_bytes().saturating_add(self.queued_bytes())
    }

    pub(super) fn new_files_bytes(&self) -> u64 {
        self.cache.active().map(|(_, open)| open.new_file_bytes()).sum()
    }

    pub(super) fn queued_bytes(&self) -> u64 {
        self.cache.active().map(|(_, open)| OpenPhext::queued_bytes(open)).sum()
    }

    /// A write waits while too many bytes wait for the disk already.
    pub(super) fn check_queue(&self, text_bytes: u64) -> Result<(), StoreError> {
        let queued_bytes = self.queued_bytes();
        let fits = queued_bytes == 0 || queued_bytes.saturating_add(text_bytes) <= QUEUED_BYTES;
        if fits { Ok(()) } else { Err(StoreError::NotYet) }
    }

    /// Whether the disk does not have the space for the new files of two saves.
    pub(super) fn lacks_space_for_two_saves(&self) -> bool {
        let both_bytes = self.usage.largest_bytes().saturating_add(TIGHT_BYTES);
        let needed_bytes = both_bytes.saturating_add(self.promised_bytes());
        self.disk.free_bytes().is_ok_and(|free_bytes| free_bytes < needed_bytes)
    }
}

pub(super) fn is_tight(disk: &dyn Disk) -> bool {
    disk.free_bytes().is_ok_and(|free_bytes| free_bytes < TIGHT_BYTES)
}

/// An existing scroll may be written wherever it is. A new one costs the breaks that lead to it, in the file of its phext.
pub(super) fn check_coordinate(scroll: &str, write: &Write, limit: Option<u32>) -> Result<(), StoreError> {
    let is_new = scroll.is_empty() && !write.edit.text().is_empty();
    let Some(limit) = limit.filter(|limit| is_new && write.at.largest_part() > *limit) else { return Ok(()) };
    Err(StoreError::TooFar { limit })
}

pub(super) fn check_expected(scroll: &str, expected: Option<&Expected>) -> Result<(), StoreError> {
    let checksum = || xxhash_rust::xxh3::xxh3_128(scroll.as_bytes());
    let is_met = expected.is_none_or(|expected| expected.is_met(scroll.is_empty(), checksum));
    if is_met { Ok(()) } else { Err(StoreError::NotAsExpected) }
}

impl Expected {
    pub(crate) fn is_met(&self, is_empty: bool, checksum: impl FnOnce() -> u128) -> bool {
        match self {
            Self::Something => !is_empty,
            Self::OneOf(checksums) => checksums.contains(&checksum()),
        }
    }
}
