//! How much room journals may take, and files beyond their texts, which saves cut off: what the texts leave of the quota,
//! and a constant. When it is used up, those that take most go first, so that all of a tenant's files together stay within
//! the quota and a constant.

use std::collections::BTreeSet;
use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::cache::Content;
use crate::store::open_phext::retiring::JournalRoom;
use crate::store::open_phext::{Clock, OpenPhext};
use crate::store::{Store, StoreError};

/// How many phexts that are not in memory are looked for at once when their journals must go.
const LONG_JOURNALS: usize = 256;

/// What a short write has at most. One that frees room passes although the disk refuses to free that of journals.
const SHORT_BYTES: u64 = 4096;

/// What could be done about journals that take too much room.
#[derive(Debug, Default)]
struct Relief {
    /// Some are about to go, or records on their way are about to make them longer.
    is_coming: bool,
    /// The saves of some are not paid for yet.
    is_unpaid: bool,
    /// The disk refuses to save some, or to remove them.
    is_refused: bool,
}

/// What a write does to the room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    /// Of its text.
    pub(super) text_bytes: u64,
    /// It makes its phext longer, or shorter.
    pub(super) takes_room: bool,
    pub(super) frees_room: bool,
}

impl Store {
    /// What journals may take; `None` is no limit.
    fn journals_limit(&self) -> Option<u64> {
        let quota = self.limits.quota_bytes?;
        let left_bytes = quota.saturating_sub(self.usage.used_bytes(Some(quota)));
        Some(left_bytes.saturating_add(self.pace.journals_bytes))
    }

    /// What journals may take before some must go: a little less, so that writes need not wait for that.
    fn journals_target(&self) -> Option<u64> {
        Some(self.journals_limit()?.saturating_sub(self.slack_bytes()))
    }

    fn slack_bytes(&self) -> u64 {
        self.pace.journals_bytes / 4
    }

    /// A write waits while journals that are too long are about to go.
    pub(super) fn check_journals(
        &mut self,
        name: &PhextName,
        demand: Demand,
        clock: &Clock,
    ) -> Result<(), StoreError> {
        if self.limits.quota_bytes.is_some() {
            // It knows what the texts leave of the quota.
            self.usage.keep_current(clock.now)?;
        }
        let Some(limit) = self.journals_limit() else { return Ok(()) };
        let taken_bytes = self.usage.spare_bytes().saturating_add(self.queued_bytes());
        let excess_bytes = taken_bytes.saturating_add(demand.text_bytes).saturating_sub(limit);
        if excess_bytes == 0 {
            return Ok(());
        }
        let relief = self.relieve(excess_bytes, clock.now);
        let is_unpaid = |open: &OpenPhext| open.journal_room(clock.now) == JournalRoom::Unpaid;
        if relief.is_coming {
            Err(StoreError::NotYet)
        } else if relief.is_unpaid {
            // A short write to another phext that makes that no longer need not wait: it takes next to no room.
            let is_own = self.cache.open(name).is_some_and(is_unpaid);
            let is_short = !demand.takes_room && demand.text_bytes <= SHORT_BYTES;
            if is_short && !is_own { Ok(()) } else { Err(StoreError::NotYet) }
        } else if relief.is_refused && !(demand.frees_room && demand.text_bytes <= SHORT_BYTES) {
            Err(self.disk_full())
        } else {
            Ok(())
        }
    }

    /// Begins to make room before writes must wait for it.
    pub(super) fn keep_journals_short(&mut self, now: Instant) {
        let Some(target) = self.journals_target() else { return };
        let excess_bytes = self.usage.spare_bytes().saturating_sub(target);
        if excess_bytes > 0 && !self.is_retiring {
            // More than is needed now, so that it is not needed again at once.
            self.relieve(excess_bytes.saturating_add(self.slack_bytes()), now);
        }
    }

    /// Has the longest journals go until so much room has been made, first those that can go at once.
    fn relieve(&mut self, mut excess_bytes: u64, now: Instant) -> Relief {
        let mut relief = Relief { is_coming: self.queued_bytes() > 0, ..Relief::default() };
        let room_of = |name: &PhextName| {
            let room = match self.cache.get(name)? {
                Content::Open(open) => open.journal_room(now),
                Content::Parked(_) => JournalRoom::Unpaid,
                Content::Damaged(_) => JournalRoom::None,
            };
            let spare_bytes = self.cache.files(name)?.spare_bytes;
            (room != JournalRoom::None).then(|| (room, spare_bytes, name.clone()))
        };
        let mut journals: Vec<(JournalRoom, u64, PhextName)> =
            self.cache.names().filter_map(room_of).collect();
        journals.sort_unstable_by(|(room, bytes, _), (other_room, other_bytes, _)| {
            room.cmp(other_room).then(other_bytes.cmp(bytes))
        });
        for (room, bytes, name) in journals {
            if excess_bytes == 0 {
                break;
            }
            match room {
                JournalRoom::None => {}
                JournalRoom::Soon => relief.is_coming = true,
                JournalRoom::Unpaid => relief.is_unpaid = true,
                JournalRoom::Refused => {
                    relief.is_refused = true;
                    continue;
                }
            }
            excess_bytes = excess_bytes.saturating_sub(bytes);
            if let Some(open) = self.cache.open_mut(&name) {
                open.give_up_journal(now);
                self.active.insert(name);
            }
        }
        relief
    }

    /// How many journals the next scan is to find.
    pub(super) fn wanted_journals(&self) -> usize {
        let is_short = |target| self.usage.spare_bytes() <= target;
        if self.journals_target().is_none_or(is_short) { 0 } else { LONG_JOURNALS }
    }

    /// Takes over the longest journals that a scan has found.
    pub(super) fn note_long_journals(&mut self, longest: BTreeSet<(u64, PhextName)>) {
        // One that is parked comes back by itself.
        let is_closed = |name: &PhextName| self.cache.get(name).is_none();
        self.long_journals = longest.into_iter().map(|(_, name)| name).filter(is_closed).collect();
    }

    /// Whether a phext is to be read only because its journal takes room that is needed.
    pub(super) fn wants_long_journals(&self) -> bool {
        !self.long_journals.is_empty() && !self.is_closing && self.wanted_journals() > 0
    }

    /// Reads such a phext, so that its journal can go.
    pub(super) fn open_long_journal(&mut self) {
        while self.wants_long_journals()
            && let Some(name) = self.long_journals.pop()
        {
            match self.refresh(&name) {
                Ok(_) => {}
                Err(StoreError::NotYet) => return self.long_journals.push(name),
                // Damage is remembered and logged; any other error comes again with the next request.
                Err(_) => continue,
            }
            let Some(open) = self.cache.open_mut(&name) else { continue };
            let now = Instant::now();
            if open.journal_room(now) == JournalRoom::Soon {
                open.give_up_journal(now);
                self.active.insert(name);
                return;
            }
        }
    }
}
