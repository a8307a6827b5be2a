//! A tenant's phexts: read, changed, and durable before a change is acknowledged. The store knows no HTTP and no threads:
//! what must wait for the disk it hands out as jobs.
//!
//! The `.phext` files are the truth. A write, a load and the first read of an event-loop tick (`freshness.rs`) compare the
//! phext in memory with its file, which another program may have changed. A write goes into memory and
//! into the phext's journal at once. It is acknowledged when the journal has been synced and, for a phext up to 1 MiB, its
//! file too. `docs/store.md` has the formats and the order of the steps.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;

use crate::store::admission::{check_coordinate, check_expected};
use crate::store::cache::{Cache, Content};
use crate::store::counts::Counts;
use crate::store::disk::Disk;
use crate::store::disk::absent::AbsentDisk;
use crate::store::disk::os::OsDisk;
use crate::store::journal_space::Demand;
use crate::store::links::resolve_link;
use crate::store::open_phext::{Clock, OpenPhext, Tuning};
use crate::store::queue::Refusal;
use crate::store::reading::Reads;
use crate::store::record::{Entry, TEXT_BYTES, fingerprint};
use crate::store::reserve::Reserve;
use crate::store::retired_keys::RetiredKeys;
use crate::store::usage::Usage;

mod admission;
pub(crate) mod breaks;
mod cache;
mod counts;
mod damage;
mod disk;
mod error;
mod eviction;
mod freshness;
pub mod fsck;
mod idempotency;
pub mod job;
mod journal;
mod journal_space;
mod links;
mod list;
mod new_journal;
mod open_phext;
mod pending;
mod phext;
mod queue;
mod reading;
mod record;
mod recovery;
mod reserve;
mod retired_keys;
mod retirement;
mod save_budget;
mod schedule;
#[cfg(test)]
mod tests;
pub mod usage;

pub use crate::store::damage::Damage;
pub use crate::store::disk::os::{DataDirectory, OpenError};
pub use crate::store::error::StoreError;
pub use crate::store::freshness::LoopTick;
pub use crate::store::idempotency::{KeyOrigin, WriteKey};
pub use crate::store::journal::JournalDamage;
pub use crate::store::links::BadLink;
pub(crate) use crate::store::list::{Listed, Listing};
pub use crate::store::pending::{CommitPoint, Pending};
pub use crate::store::phext::cursor::Cursor;
pub use crate::store::phext::joined::Joined;
pub use crate::store::phext::scroll::{Fragments, Scroll};
pub use crate::store::phext::{Edit, Phext, Revision, TextDamage};

/// What a tenant may use. It may change while the store is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The files of all phexts together; `None` is no limit.
    pub quota_bytes: Option<u64>,
    /// How many phexts; `None` is no limit.
    pub phexts: Option<usize>,
    /// The largest part of a new scroll's coordinate; `None` is no limit.
    pub coordinate: Option<u32>,
    /// What phexts may take in memory. The one in use stays, however large it is.
    pub memory_bytes: u64,
}

/// A tenant's phexts.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    reserve: Arc<Reserve>,
    tuning: Tuning,
    /// [`Limits::coordinate`].
    coordinate_limit: Option<u32>,
    /// The phexts in memory. One without a file is not among them, so requests for unknown names cost nothing.
    cache: Cache,
    usage: Usage,
    /// The idempotency keys of phexts that have no journal.
    keys: RetiredKeys,
    /// The scroll counts of files, for listings.
    counts: Arc<Counts>,
    /// Without it each read has its own `stat`.
    tick: Option<LoopTick>,
    /// Without them, files are read on the store's own thread.
    reads: Option<Reads>,
    /// Phexts that were reloaded because their journals could only be read, for a write that is tried again.
    reopened: BTreeSet<PhextName>,
    /// Something that requests may wait for has changed without a job.
    has_progress: bool,
    health: Health,
    is_closing: bool,
}

/// Whether the directory can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// The disk failed: only a new start can tell what it has.
    InDoubt,
    /// The directory was removed or replaced: nothing in it is the tenant's any more.
    Displaced,
}

/// A change that is asked for.
#[derive(Debug)]
pub struct Write {
    /// Which scroll.
    pub at: Coordinate,
    /// How it is changed.
    pub edit: Edit,
    /// What it must be now for the change to be made.
    pub expected: Option<Expected>,
    /// The idempotency key, with which the same request may be sent again.
    pub key: Option<WriteKey>,
}

/// What a text must be: a scroll before a write, or an answer for the client to have it cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Any text, but not empty.
    Something,
    /// A text with one of these checksums (XXH3, 128 bits).
    OneOf(Vec<u128>),
}

/// What is answered to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteReceipt {
    /// The bytes of the text that was written or, of a removal, of the text that was there.
    pub bytes: u64,
    /// Whether the write was made before, when its key first arrived: nothing was written now.
    pub is_replay: bool,
}

impl Store {
    /// Serves a tenant's directory. No other worker may have it.
    ///
    /// # Errors
    /// Another worker has it, or the system refuses.
    pub fn open(directory: DataDirectory, limits: Limits) -> Result<Self, OpenError> {
        Ok(Self::on(Arc::new(OsDisk::lock(directory)?), limits, Tuning::DEFAULT))
    }

    /// A store without a directory, of a worker that has nothing to serve: every operation fails.
    pub(crate) fn absent(limits: Limits) -> Self {
        Self::on(Arc::new(AbsentDisk), limits, Tuning::DEFAULT)
    }

    fn on(disk: Arc<dyn Disk>, limits: Limits, tuning: Tuning) -> Self {
        let mut store = Self {
            disk,
            reserve: Arc::default(),
            tuning,
            coordinate_limit: None,
            cache: Cache::default(),
            usage: Usage::default(),
            keys: RetiredKeys::default(),
            counts: Arc::default(),
            tick: None,
            reads: None,
            reopened: BTreeSet::new(),
            has_progress: false,
            health: Health::Good,
            is_closing: false,
        };
        store.set_limits(limits);
        store
    }

    /// Lets the reads of one tick share a `stat` of each phext's file, for up to 0.1 ms. The caller ends each tick.
    #[must_use]
    pub fn with_loop_tick(self, tick: LoopTick) -> Self {
        Self { tick: Some(tick), ..self }
    }

    /// Changes what the tenant may use, from the next operation on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.usage.set_limits(limits.quota_bytes, limits.phexts);
        self.cache.limit_bytes = limits.memory_bytes;
        self.coordinate_limit = limits.coordinate;
    }

    /// Whether the disk failed, so that nothing more is read or written before the store is opened again.
    pub fn is_in_doubt(&self) -> bool {
        self.health != Health::Good
    }

    /// Whether the directory was removed or replaced: nothing in it is the tenant's any more.
    pub fn is_displaced(&self) -> bool {
        self.health == Health::Displaced
    }

    /// Gives the directory up: nothing is read, written or acknowledged any more.
    pub fn displace(&mut self) {
        if self.health != Health::Displaced {
            tracing::warn!(
                "the data directory was removed or replaced; this worker ends, and the next one serves what is there"
            );
        }
        self.health = Health::Displaced;
    }

    /// Gives the directory up if it was removed, which may be the cause of an error.
    pub fn check_directory(&mut self) {
        if self.disk.is_removed().is_ok_and(|is_removed| is_removed) {
            self.displace();
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.check_directory();
        if !self.is_displaced() {
            tracing::error!(%error, "the disk failed; nothing more is acknowledged before a new worker has read it");
            self.health = Health::InDoubt;
        }
    }

    /// A phext as it was last durable: writes that wait for the disk are not in it, so reads need not wait. One that does
    /// not exist is empty, and no file is made. An edit of another program that is newer than the last `stat` may be
    /// missing ([`Store::with_loop_tick`]).
    ///
    /// # Errors
    /// The phext is damaged or cannot be read.
    pub fn read(&mut self, name: &PhextName) -> Result<Pending<&Phext>, StoreError> {
        if self.touch_if_fresh(name) { Ok(self.cache.durable(name)) } else { self.load(name) }
    }

    /// The same, with a new `stat` of the file.
    ///
    /// # Errors
    /// Those of [`Store::read`].
    pub fn load(&mut self, name: &PhextName) -> Result<Pending<&Phext>, StoreError> {
        // Taken before the `stat`, a stamp is never newer than what it stands for.
        let stamp = self.tick.as_ref().map(LoopTick::stamp);
        let target = self.refresh(name)?;
        let name = target.as_ref().unwrap_or(name);
        if let Some(open) = self.cache.open_mut(name) {
            open.stat_stamp = stamp;
        }
        self.evict_others(name);
        Ok(self.cache.durable(name))
    }

    /// Notes a use of what is in memory, if a read may have it without another `stat`.
    fn touch_if_fresh(&mut self, name: &PhextName) -> bool {
        if self.is_in_doubt() {
            return false;
        }
        let Some(tick) = &self.tick else { return false };
        self.cache.touch_if(name, |content| match content {
            Content::Open(open) => {
                !open.must_reload && open.stat_stamp.is_some_and(|stamp| tick.is_fresh(stamp))
            }
            Content::Evicted(_) | Content::Damaged(_) => false,
        })
    }

    /// A phext as it was last read or written, to learn how much memory an answer will take. It is only read when it is not in
    /// memory. Where another program has changed the file since, this is the phext before that change.
    pub(crate) fn peek(&mut self, name: &PhextName) -> Result<&Phext, StoreError> {
        let mut target = None;
        if self.cache.open(name).is_none() {
            target = self.refresh(name)?;
            self.evict_others(target.as_ref().unwrap_or(name));
        }
        Ok(self.cache.durable(target.as_ref().unwrap_or(name)).into_inner_undurable())
    }

    /// Changes a scroll. The change may be acknowledged when its commit points are durable.
    ///
    /// # Errors
    /// The phext is damaged, the scroll is not as expected, the key was used for another write, the quota or
    /// the disk is full, or the system refuses.
    pub fn write(&mut self, name: &PhextName, write: &Write) -> Result<Pending<WriteReceipt>, StoreError> {
        let (requested, target) = (name, self.refresh(name)?);
        let name = target.as_ref().unwrap_or(name);
        if self.cache.open(name).is_some_and(OpenPhext::is_unconfirmed) {
            return Err(StoreError::Unwritable);
        }
        let clock = clock();
        if let Some(replay) = self.replay(name, requested, write, &clock)? {
            return Ok(replay);
        }
        let phext = self.cache.latest(name);
        let scroll = phext.scroll(&write.at);
        check_expected(scroll, write.expected.as_ref())?;
        let receipt = WriteReceipt { bytes: answer_bytes(scroll, &write.edit), is_replay: false };
        check_coordinate(scroll, write, self.coordinate_limit)?;
        let (before, after) = (phext.file_bytes(), phext.file_bytes_after(&write.at, &write.edit));
        let Some(entry) = entry(phext, write, receipt.bytes)? else { return Ok(self.pending(name, receipt)) };
        if before == 0 && after > 0 {
            self.usage.check_count(self.cache.open(name).is_some(), clock.now)?;
        }
        self.usage.check_quota(before, after, clock.now)?;
        self.check_disk_space(name, before, after, &clock)?;
        let text_bytes = write.edit.text().len() as u64;
        self.check_queue(text_bytes)?;
        let demand = Demand { text_bytes, takes_space: after > before, frees_space: after < before };
        self.check_journal_space(name, demand, &clock)?;
        self.reopen_unwritable(name)?;
        self.log(name, &entry, after <= before, &clock);
        self.evict_others(name);
        Ok(self.pending(name, receipt))
    }

    /// A scroll with all its writes, durable or not, right after one was made.
    pub fn latest_scroll(&self, name: &PhextName, at: &Coordinate) -> &str {
        if self.cache.open(name).is_some() {
            return self.cache.latest(name).scroll(at);
        }
        let target = resolve_link(&*self.disk, name).ok().flatten();
        target.map_or("", |target| self.cache.latest(&target).scroll(at))
    }

    /// Whether all of these are durable.
    ///
    /// # Errors
    /// They never will be: the disk did not take the records, or has failed.
    pub fn is_durable(&self, commit_points: &[CommitPoint]) -> Result<bool, StoreError> {
        if self.is_in_doubt() {
            return Err(StoreError::InDoubt);
        }
        if let Some(refusal) = commit_points.iter().find_map(|point| point.refusal.get()) {
            return Err(match refusal {
                Refusal::Full => self.usage.disk_full(),
                Refusal::Unwritable => StoreError::Unwritable,
                Refusal::Blocked => StoreError::Blocked,
                Refusal::Failed(kind) => StoreError::Io(kind.into()),
            });
        }
        // What was evicted is durable, and no answer waits for its save.
        let has_committed =
            |point: &CommitPoint| self.cache.open(&point.name).is_none_or(|open| open.has_committed(point));
        Ok(commit_points.iter().all(has_committed))
    }

    fn pending<T>(&self, name: &PhextName, value: T) -> Pending<T> {
        let commit_point = self.cache.open(name).and_then(OpenPhext::commit_point);
        Pending::new(value, commit_point.into_iter().collect())
    }

    /// What was answered when the write's key first arrived. It rests on that write, and on no later one.
    fn replay(
        &mut self,
        name: &PhextName,
        requested: &PhextName,
        write: &Write,
        clock: &Clock,
    ) -> Result<Option<Pending<WriteReceipt>>, StoreError> {
        self.load_keys(clock.now)?;
        let Some(key) = &write.key else { return Ok(None) };
        let open = self.cache.open(name);
        // A link may have replaced the phext's file since the key first arrived.
        let retired = || [name, requested].iter().find_map(|name| self.keys.get(name, key, clock.now));
        let known = open.and_then(|open| open.keys.get(key, clock.now)).or_else(retired);
        let Some(known) = known else { return Ok(None) };
        if known.fingerprint != fingerprint(&write.at, &write.edit) {
            return Err(StoreError::KeyReused);
        }
        let receipt = WriteReceipt { bytes: known.answer_bytes, is_replay: true };
        let commit_point = open.and_then(|open| open.commit_point_of_key(key));
        Ok(Some(Pending::new(receipt, commit_point.into_iter().collect())))
    }

    /// Applies an entry in memory, and queues it for the journal. One that frees space may use the reserve.
    fn log(&mut self, name: &PhextName, entry: &Entry<'_>, frees_space: bool, clock: &Clock) {
        if self.cache.open(name).is_none() {
            let open = OpenPhext::new(name.clone(), self.tuning);
            self.cache.insert(name, Content::Open(Box::new(open)));
        }
        self.cache.activate(name);
        if let Some(open) = self.cache.open_mut(name) {
            open.log(entry, frees_space, clock);
            self.usage.set(name, Some(open.files()));
        }
        self.cache.recount(name);
        self.keep_journals_short(clock.now);
        self.usage.warn();
    }

    /// A journal that could only be read may have become writable since: before a write its phext is loaded again.
    fn reopen_unwritable(&mut self, name: &PhextName) -> Result<(), StoreError> {
        let is_unwritable = |open: &OpenPhext| open.has_unwritable_journal() && open.is_idle();
        if self.reopened.remove(name) || !self.cache.open(name).is_some_and(is_unwritable) {
            return Ok(());
        }
        self.reopened.insert(name.clone());
        self.cache.remove(name);
        self.refresh(name)?;
        self.reopened.remove(name);
        Ok(())
    }
}

/// The record of a write; `None` when it changes nothing and its key need not be remembered.
fn entry<'a>(phext: &Phext, write: &'a Write, answer_bytes: u64) -> Result<Option<Entry<'a>>, StoreError> {
    let Write { at, edit, key, .. } = write;
    let bytes = edit.text().len();
    if bytes > TEXT_BYTES {
        return Err(StoreError::TextTooLong { bytes });
    }
    if !phext.is_unchanged_by(at, edit) {
        let (at, edit, key) = (*at, Cow::Borrowed(edit), *key);
        return Ok(Some(Entry::Edit { at, edit, answer_bytes, key }));
    }
    // The gateway retries only while the client has no answer yet. Until then, what changes nothing may be applied twice.
    let key = key.filter(|key| key.origin == KeyOrigin::Client);
    Ok(key.map(|key| Entry::Key { key, fingerprint: fingerprint(at, edit), answer_bytes }))
}

fn answer_bytes(scroll: &str, edit: &Edit) -> u64 {
    match edit {
        Edit::Append(text) | Edit::Replace(text) => text.len() as u64,
        Edit::Remove => scroll.len() as u64,
    }
}

fn clock() -> Clock {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Clock { now: Instant::now(), time_us: u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX) }
}
