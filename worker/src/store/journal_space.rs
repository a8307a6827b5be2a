//! How much space journals may take, and files beyond their texts, which saves cut off: what the texts leave of the quota, and
//! a constant. When that is used up, the longest ones are removed first, so that all of a tenant's files together stay within
//! the quota and a constant.

use std::cmp::Reverse;
use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::cache::Content;
use crate::store::open_phext::retiring::JournalSpace;
use crate::store::open_phext::{Clock, OpenPhext};
use crate::store::{Store, StoreError};

/// How many phexts that are not in memory one scan finds when their journals must be removed.
const LONG_JOURNALS: usize = 256;

/// Up to this length a write that frees space passes although the disk refuses to free that of journals.
const SHORT_BYTES: u64 = 4096;

/// What can be done about journals that take too much space.
#[derive(Debug, Default)]
struct Relief {
    /// Some are about to be removed, or queued records are about to make some longer.
    is_coming: bool,
    /// The budget does not allow the saves of some yet.
    is_unpaid: bool,
    /// The disk refuses to save some, or to remove them.
    is_refused: bool,
}

/// What a write does to the space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    /// Of its text.
    pub(super) text_bytes: u64,
    /// It makes its phext longer, or shorter.
    pub(super) takes_space: bool,
    pub(super) frees_space: bool,
}

impl Store {
    /// What journals may take; `None` is no limit.
    fn journals_limit(&self) -> Option<u64> {
        let left_bytes = self.usage.quota_bytes?.saturating_sub(self.usage.used_bytes());
        Some(left_bytes.saturating_add(self.tuning.journals_bytes))
    }

    /// What journals may take before some must be removed: a little less, so that writes need not wait for that.
    fn journals_target(&self) -> Option<u64> {
        Some(self.journals_limit()?.saturating_sub(self.slack_bytes()))
    }

    fn slack_bytes(&self) -> u64 {
        self.tuning.journals_bytes / 4
    }

    /// A write waits while journals that are too long are about to be removed.
    pub(super) fn check_journal_space(
        &mut self,
        name: &PhextName,
        demand: Demand,
        clock: &Clock,
    ) -> Result<(), StoreError> {
        if self.usage.quota_bytes.is_none() {
            return Ok(());
        }
        // It knows what the texts leave of the quota.
        self.usage.keep_current(clock.now)?;
        let Some(limit) = self.journals_limit() else { return Ok(()) };
        let taken_bytes = self.usage.spare_bytes().saturating_add(self.queued_bytes());
        let excess_bytes = taken_bytes.saturating_add(demand.text_bytes).saturating_sub(limit);
        if excess_bytes == 0 {
            return Ok(());
        }
        let relief = self.relieve(excess_bytes, clock.now);
        let is_unpaid = |open: &OpenPhext| open.journal_space(clock.now) == JournalSpace::Unpaid;
        if relief.is_coming {
            Err(StoreError::NotYet)
        } else if relief.is_unpaid {
            // A short write that makes another phext no longer need not wait: it takes next to no space.
            let is_own = self.cache.open(name).is_some_and(is_unpaid);
            let is_short = !demand.takes_space && demand.text_bytes <= SHORT_BYTES;
            if is_short && !is_own { Ok(()) } else { Err(StoreError::NotYet) }
        } else if relief.is_refused && !(demand.frees_space && demand.text_bytes <= SHORT_BYTES) {
            Err(self.usage.disk_full())
        } else {
            Ok(())
        }
    }

    /// Begins to free space before writes must wait for it.
    pub(super) fn keep_journals_short(&mut self, now: Instant) {
        let Some(target) = self.journals_target() else { return };
        let excess_bytes = self.usage.spare_bytes().saturating_sub(target);
        if excess_bytes > 0 && !self.keys.is_retiring() {
            // More than is needed now, so that the next write does not need it again.
            self.relieve(excess_bytes.saturating_add(self.slack_bytes()), now);
        }
    }

    /// Has the longest journals removed until so much space is free, first those that can be removed at once.
    fn relieve(&mut self, mut excess_bytes: u64, now: Instant) -> Relief {
        let mut relief = Relief { is_coming: self.queued_bytes() > 0, ..Relief::default() };
        let space_of = |name: &PhextName| {
            let space = match self.cache.get(name)? {
                Content::Open(open) => open.journal_space(now),
                Content::Evicted(_) => JournalSpace::Unpaid,
                Content::Damaged(_) => JournalSpace::None,
            };
            let spare_bytes = self.cache.files(name)?.spare_bytes;
            (space != JournalSpace::None).then(|| (space, spare_bytes, name.clone()))
        };
        let mut journals: Vec<(JournalSpace, u64, PhextName)> =
            self.cache.names().filter_map(space_of).collect();
        journals.sort_unstable_by_key(|(space, bytes, _)| (*space, Reverse(*bytes)));
        for (space, bytes, name) in journals {
            if excess_bytes == 0 {
                break;
            }
            match space {
                JournalSpace::None => {}
                JournalSpace::Soon => relief.is_coming = true,
                JournalSpace::Unpaid => relief.is_unpaid = true,
                JournalSpace::Refused => {
                    relief.is_refused = true;
                    continue;
                }
            }
            excess_bytes = excess_bytes.saturating_sub(bytes);
            if let Some(open) = self.cache.open_mut(&name) {
                open.give_up_journal(now);
                self.cache.activate(&name);
            }
        }
        relief
    }

    /// How many of the longest journals the next scan is to find.
    pub(super) fn wanted_journals(&self) -> usize {
        let is_short = |target| self.usage.spare_bytes() <= target;
        if self.journals_target().is_none_or(is_short) { 0 } else { LONG_JOURNALS }
    }

    /// Whether a phext is to be loaded only because its journal takes space that is needed.
    pub(super) fn wants_long_journals(&self) -> bool {
        !self.usage.long_journals.is_empty() && !self.is_closing && self.wanted_journals() > 0
    }

    /// Loads such a phext, so that its journal can be removed.
    pub(super) fn load_long_journal(&mut self) {
        while self.wants_long_journals()
            && let Some(name) = self.usage.long_journals.pop()
        {
            match self.refresh(&name) {
                Ok(_) => {}
                Err(StoreError::NotYet) => return self.usage.long_journals.push(name),
                // Damage is remembered and logged; any other error is reported to the next request.
                Err(_) => continue,
            }
            let Some(open) = self.cache.open_mut(&name) else { continue };
            let now = Instant::now();
            if open.journal_space(now) == JournalSpace::Soon {
                open.give_up_journal(now);
                return self.cache.activate(&name);
            }
        }
    }
}
