//! How much room journals may take: what the texts leave of the quota, and a constant. When it is used up, the longest
//! journals go first, so that all of a tenant's files together stay within the quota and a constant.

use std::collections::BTreeSet;
use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::open_phext::Clock;
use crate::store::{Store, StoreError};

/// How many phexts that are not in memory are looked for at once when their journals must go.
const LONG_JOURNALS: usize = 256;

/// What becomes of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relief {
    /// Journals are about to go.
    Coming,
    /// No phext in memory has one.
    Done,
    /// What is in the journals cannot be saved now.
    Refused,
}

impl Store {
    /// What journals may take; `None` is no limit.
    fn journals_limit(&self) -> Option<u64> {
        let quota = self.limits.quota_bytes?;
        let left_bytes = quota.saturating_sub(self.usage.used_bytes(Some(quota)));
        Some(left_bytes.saturating_add(self.pace.journals_bytes))
    }

    /// A write waits while journals that are too long are about to go.
    pub(super) fn check_journals(&mut self, text_bytes: u64, clock: &Clock) -> Result<(), StoreError> {
        let Some(limit) = self.journals_limit() else { return Ok(()) };
        let taken_bytes = self.usage.journal_bytes().saturating_add(self.queued_bytes());
        let excess_bytes = taken_bytes.saturating_add(text_bytes).saturating_sub(limit);
        if excess_bytes == 0 {
            return Ok(());
        }
        match self.relieve(excess_bytes, clock.now) {
            Relief::Coming => Err(StoreError::NotYet),
            Relief::Done => Ok(()),
            Relief::Refused => Err(self.disk_full()),
        }
    }

    /// Begins to make room before writes must wait for it.
    pub(super) fn keep_journals_short(&mut self, now: Instant) {
        let Some(limit) = self.journals_limit() else { return };
        let slack_bytes = self.pace.journals_bytes / 4;
        let excess_bytes = self.usage.journal_bytes().saturating_add(slack_bytes).saturating_sub(limit);
        if excess_bytes > 0 {
            // More than is needed now, so that it is not needed again at once.
            self.relieve(excess_bytes.saturating_add(slack_bytes), now);
        }
    }

    /// Has the longest journals go until so much room has been made.
    fn relieve(&mut self, mut excess_bytes: u64, now: Instant) -> Relief {
        let mut relief = Relief::Done;
        let mut journals: Vec<(u64, PhextName)> = self
            .cache
            .names()
            .filter_map(|name| Some((self.cache.open(name)?.journal_bytes(), name.clone())))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        journals.sort_unstable_by(|one, other| other.cmp(one));
        for (bytes, name) in journals {
            if excess_bytes == 0 {
                break;
            }
            let Some(open) = self.cache.open_mut(&name) else { continue };
            if open.give_up_journal(now) {
                excess_bytes = excess_bytes.saturating_sub(bytes);
                relief = Relief::Coming;
                self.active.insert(name);
            } else if relief == Relief::Done {
                relief = Relief::Refused;
            }
        }
        relief
    }

    /// How many journals the next scan is to find.
    pub(super) fn wanted_journals(&self) -> usize {
        let is_short = |limit| self.usage.journal_bytes() <= limit;
        if self.journals_limit().is_none_or(is_short) { 0 } else { LONG_JOURNALS }
    }

    /// Takes over the longest journals that a scan has found.
    pub(super) fn note_long_journals(&mut self, longest: BTreeSet<(u64, PhextName)>) {
        let is_closed = |name: &PhextName| self.cache.open(name).is_none();
        self.long_journals = longest.into_iter().map(|(_, name)| name).filter(is_closed).collect();
    }

    /// Whether a phext is to be read only because its journal takes room that is needed.
    pub(super) fn wants_long_journals(&self) -> bool {
        !self.long_journals.is_empty() && !self.is_closing && self.wanted_journals() > 0
    }

    /// Reads such a phext, so that its journal can go.
    pub(super) fn open_long_journal(&mut self) {
        if !self.wants_long_journals() {
            return;
        }
        let Some(name) = self.long_journals.pop() else { return };
        // Damage is remembered and logged; anything else shows again when somebody asks.
        if self.refresh(&name).is_ok()
            && let Some(open) = self.cache.open_mut(&name)
        {
            open.give_up_journal(Instant::now());
        }
    }
}
