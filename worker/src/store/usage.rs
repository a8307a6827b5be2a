//! How much of its quota a tenant uses: the serialised size of all its phexts.

use std::io;
use std::time::{Duration, Instant};

use sq_shared::phext_name::PhextName;

use crate::store::disk::{Disk, FileName};

/// Phexts that are not in memory are looked at again after this time: another program may have added some.
const LISTING_LIFETIME: Duration = Duration::from_secs(10);

/// Before a write is refused they are looked at as well, but not more often than this.
const LISTING_PAUSE: Duration = Duration::from_millis(100);

/// A warning is logged above so many hundredths of the quota.
const WARNING_PERCENT: u64 = 90;

/// The account. Phexts in memory are counted as they would be written, the others by their files.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Of those in memory.
    open_bytes: u64,
    others_bytes: u64,
    /// The most that one phext had, as far as is known.
    largest_bytes: u64,
    listed_at: Option<Instant>,
    is_warned: bool,
}

impl Usage {
    /// A phext came into memory, whose file had so many bytes.
    pub(super) fn opened(&mut self, file_bytes: u64, phext_bytes: u64) {
        self.others_bytes = self.others_bytes.saturating_sub(file_bytes);
        self.open_bytes += phext_bytes;
        self.largest_bytes = self.largest_bytes.max(phext_bytes);
    }

    /// A phext left memory.
    pub(super) fn closed(&mut self, phext_bytes: u64) {
        self.open_bytes = self.open_bytes.saturating_sub(phext_bytes);
        self.others_bytes += phext_bytes;
    }

    /// A phext in memory was not what its file is: what is known of the others is not either.
    pub(super) fn forget_listing(&mut self) {
        self.listed_at = None;
    }

    /// A phext in memory has changed its size.
    pub(super) fn changed(&mut self, bytes_before: u64, bytes_after: u64) {
        self.open_bytes = self.open_bytes.saturating_sub(bytes_before) + bytes_after;
        self.largest_bytes = self.largest_bytes.max(bytes_after);
    }

    /// All of it, as far as is known.
    pub(super) fn used_bytes(&self) -> u64 {
        self.open_bytes + self.others_bytes
    }

    /// The size of the largest phext, which takes as much room again while it is saved.
    pub(super) fn largest_bytes(&self) -> u64 {
        self.largest_bytes
    }

    /// Whether the others should be listed before the account is trusted.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.listed_at.is_none_or(|listed_at| now.saturating_duration_since(listed_at) >= LISTING_LIFETIME)
    }

    /// Whether they may be listed again.
    pub(super) fn may_list(&self, now: Instant) -> bool {
        self.listed_at.is_none_or(|listed_at| now.saturating_duration_since(listed_at) >= LISTING_PAUSE)
    }

    /// Counts the phexts that are not in memory; of the others `open_bytes` tells the size.
    pub(super) fn list(
        &mut self,
        disk: &dyn Disk,
        open_bytes: impl Fn(&PhextName) -> Option<u64>,
        now: Instant,
    ) -> io::Result<()> {
        let (mut others_bytes, mut largest_bytes) = (0, 0);
        for (file, identity) in disk.list()? {
            let (FileName::Phext(name) | FileName::Journal(name)) = &file else { continue };
            match (open_bytes(name), &file) {
                (Some(bytes), _) => largest_bytes = largest_bytes.max(bytes),
                (None, FileName::Phext(_)) => {
                    others_bytes += identity.bytes;
                    largest_bytes = largest_bytes.max(identity.bytes);
                }
                (None, _) => {}
            }
        }
        (self.others_bytes, self.largest_bytes) = (others_bytes, largest_bytes);
        self.listed_at = Some(now);
        Ok(())
    }

    /// Tells the operator once when the quota is nearly used up, and again when that happens anew.
    pub(super) fn warn(&mut self, quota: u64) {
        let used = self.used_bytes();
        let is_near = u128::from(used) * 100 >= u128::from(quota) * u128::from(WARNING_PERCENT);
        if is_near && !self.is_warned {
            tracing::warn!(used, quota, "the tenant's quota is nearly used up: {WARNING_PERCENT} % or more");
        }
        self.is_warned = is_near;
    }
}
