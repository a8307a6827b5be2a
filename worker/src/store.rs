//! A tenant's phexts: read, changed, and durable before a change is reported. It knows no HTTP, and no
//! threads: what must wait for the disk it hands out as jobs.
//!
//! The `.phext` files are the truth. A write, a load and the first read of a turn (`look.rs`) first look whether the file
//! is still the one that is in memory; another program may have written it. A write goes into the phext's journal and into memory at once,
//! and counts when the journal has been synced; the file follows. `docs/store.md` has the formats and the
//! order of the steps.

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
use crate::store::journal_room::Demand;
use crate::store::keys::Keys;
use crate::store::links::linked;
use crate::store::open_phext::{Clock, OpenPhext, Pace};
use crate::store::queue::Refusal;
use crate::store::reading::Reads;
use crate::store::record::{Entry, TEXT_BYTES, fingerprint};
use crate::store::reserve::Reserve;
use crate::store::save_budget::Budgets;
use crate::store::usage::Usage;

mod admission;
pub mod breaks;
mod cache;
mod counts;
mod damage;
mod disk;
mod error;
pub mod fsck;
pub mod job;
mod journal;
mod journal_room;
mod keys;
mod links;
mod list;
mod look;
mod memory;
mod new_journal;
mod open_phext;
mod phext;
mod queue;
mod reading;
mod record;
mod recovery;
mod repeats;
mod reserve;
mod retirement;
mod save_budget;
mod schedule;
#[cfg(test)]
mod tests;
mod ticket;
pub mod usage;

pub use crate::store::damage::Damage;
pub use crate::store::disk::os::{DataDirectory, OpenError};
pub use crate::store::error::StoreError;
pub use crate::store::journal::JournalDamage;
pub use crate::store::links::BadLink;
pub use crate::store::list::{Listed, Listing};
pub use crate::store::look::Turns;
pub use crate::store::phext::cursor::Cursor;
pub use crate::store::phext::joined::Joined;
pub use crate::store::phext::scroll::{Fragments, Scroll};
pub use crate::store::phext::{Edit, Phext, State, TextDamage};
pub use crate::store::repeats::{KeyOrigin, RepeatKey};
pub use crate::store::ticket::{Pending, Ticket};

/// What a tenant may use. It may change while the store is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The files of all phexts together; `None` is no limit.
    pub quota_bytes: Option<u64>,
    /// How many phexts; `None` is no limit.
    pub phexts: Option<usize>,
    /// The largest part of a new scroll's coordinate; `None` is no limit.
    pub coordinate: Option<u32>,
    /// What phexts may take in memory. The one in use is always kept, however large it is.
    pub memory_bytes: u64,
}

/// A tenant's phexts.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    limits: Limits,
    pace: Pace,
    /// Those in memory. One without a file is not here, so that asking for names costs nothing.
    cache: Cache,
    /// Those for which a job may be due or under way.
    active: BTreeSet<PhextName>,
    /// What phexts that have left memory have to pay for saves with.
    budgets: Budgets,
    /// Those that have left memory unsaved, by when they must be saved.
    parked: BTreeSet<(Instant, PhextName)>,
    /// What their texts have.
    parked_bytes: u64,
    usage: Usage,
    reserve: Arc<Reserve>,
    /// Those of phexts that have no journal.
    keys: Keys,
    /// Those that have left memory because their journals could only be read, for a write that is asked for again.
    reopened: BTreeSet<PhextName>,
    /// A job is about to remove files of phexts that do without.
    is_retiring: bool,
    /// Phexts that are not in memory, and whose journals take room that is needed.
    long_journals: Vec<PhextName>,
    /// How many scrolls phexts have that are not in memory, for the listing.
    counts: Arc<Counts>,
    /// Without them each read looks at its file.
    turns: Option<Turns>,
    /// Without them files are read where they are needed.
    reads: Option<Reads>,
    /// Something that requests may wait for has changed without a job.
    has_news: bool,
    /// The disk failed: what it holds is known only after a new start.
    is_in_doubt: bool,
    /// The directory is not the tenant's any more.
    is_displaced: bool,
    is_closing: bool,
    /// How often a phext has come into memory.
    visits: u64,
    /// What a phext without a file reads as.
    empty: Phext,
}

/// A change that is asked for.
#[derive(Debug)]
pub struct Write {
    /// Which scroll.
    pub at: Coordinate,
    /// What becomes of it.
    pub edit: Edit,
    /// What it must be now for the change to be made.
    pub expected: Option<Expected>,
    /// The key under which the same request may come again.
    pub repeat: Option<RepeatKey>,
}

/// What a scroll must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Any text, but not empty.
    Something,
    /// A text with one of these checksums (XXH3, 128 bits).
    OneOf(Vec<u128>),
}

/// A change that was made, now or when its key came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The bytes of the text that was written or, of a removal, of the text that was there.
    pub bytes: u64,
    /// Whether it was made before: nothing was written now.
    pub is_replay: bool,
}

impl Store {
    /// Serves a tenant's directory. No other worker may have it.
    ///
    /// # Errors
    /// Another worker has it, or the system refuses.
    pub fn open(directory: DataDirectory, limits: Limits) -> Result<Self, OpenError> {
        Ok(Self::on(Arc::new(OsDisk::lock(directory)?), limits, Pace::DEFAULT))
    }

    /// A store without a directory, of a worker that has nothing to serve: whatever is asked of it fails.
    pub fn absent(limits: Limits) -> Self {
        Self::on(Arc::new(AbsentDisk), limits, Pace::DEFAULT)
    }

    fn on(disk: Arc<dyn Disk>, limits: Limits, pace: Pace) -> Self {
        Self {
            disk,
            limits,
            pace,
            cache: Cache::default(),
            active: BTreeSet::new(),
            budgets: Budgets::default(),
            parked: BTreeSet::new(),
            parked_bytes: 0,
            usage: Usage::default(),
            reserve: Arc::default(),
            keys: Keys::default(),
            reopened: BTreeSet::new(),
            is_retiring: false,
            long_journals: Vec::new(),
            counts: Arc::default(),
            turns: None,
            reads: None,
            has_news: false,
            is_in_doubt: false,
            is_displaced: false,
            is_closing: false,
            visits: 0,
            empty: Phext::default(),
        }
    }

    /// Reads of one turn look at a phext's file once, or again after 0.1 ms. Whoever runs the thread ends each turn.
    #[must_use]
    pub fn looking_once_a_turn(self, turns: Turns) -> Self {
        Self { turns: Some(turns), ..self }
    }

    /// Changes what the tenant may use, from the next operation on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether the disk failed so that nothing more is read or written before the store is opened anew.
    pub fn is_in_doubt(&self) -> bool {
        self.is_in_doubt
    }

    /// Whether the directory was removed, or another one has its place: nothing in it is the tenant's any more.
    pub fn is_displaced(&self) -> bool {
        self.is_displaced
    }

    /// Gives the directory up: nothing is read, written or acknowledged any more.
    pub fn displace(&mut self) {
        if !std::mem::replace(&mut self.is_displaced, true) {
            tracing::warn!(
                "the directory was removed or replaced: this worker ends, and what is in its place is served"
            );
        }
        self.is_in_doubt = true;
    }

    /// Gives the directory up if it was removed, after an error that this may explain.
    pub fn check_directory(&mut self) {
        if self.disk.is_removed().is_ok_and(|is_removed| is_removed) {
            self.displace();
        }
    }

    /// A phext as it was last durable: writes that wait for the disk are not in it, so reads need not wait. One that does
    /// not exist is empty, and no file is made. An edit of another program that is newer than the last look at the file
    /// may be missing ([`Store::looking_once_a_turn`]).
    ///
    /// # Errors
    /// The phext is damaged or cannot be read.
    pub fn read(&mut self, name: &PhextName) -> Result<Pending<&Phext>, StoreError> {
        if self.touch_if_looked_at(name) { Ok(self.as_in_memory(name)) } else { self.load(name) }
    }

    /// The same, and the file is looked at in any case.
    ///
    /// # Errors
    /// Those of [`Store::read`].
    pub fn load(&mut self, name: &PhextName) -> Result<Pending<&Phext>, StoreError> {
        // Taken before the file is looked at, it is never newer than what it stands for.
        let look = self.turns.as_ref().map(Turns::look);
        let linked = self.refresh(name)?;
        let name = linked.as_ref().unwrap_or(name);
        if let Some(open) = self.cache.open_mut(name) {
            open.looked = look;
        }
        self.trim(name);
        Ok(self.as_in_memory(name))
    }

    /// Notes a use of what is in memory, if a read may have it without another look at the file.
    fn touch_if_looked_at(&mut self, name: &PhextName) -> bool {
        if self.is_in_doubt {
            return false;
        }
        let Some(turns) = &self.turns else { return false };
        self.cache.touch_if(name, |content| match content {
            Content::Open(open) => {
                !open.is_superseded() && open.looked.is_some_and(|look| turns.stands(look))
            }
            Content::Parked(_) | Content::Damaged(_) => false,
        })
    }

    fn as_in_memory(&self, name: &PhextName) -> Pending<&Phext> {
        match self.cache.open(name) {
            None => Pending::settled(&self.empty),
            Some(open) => open.durable(),
        }
    }

    /// A phext as it was when it was last read or written: the disk is asked only when it is not in memory. For how much
    /// room an answer will take. Where another program has changed the file since, that is the room of what it was: one
    /// answer's worth of error for each such change.
    ///
    /// # Errors
    /// It must be read, and that fails as [`Store::read`] does.
    pub fn glance(&mut self, name: &PhextName) -> Result<&Phext, StoreError> {
        if self.cache.open(name).is_some() {
            return Ok(self.as_in_memory(name).into_untold());
        }
        let linked = self.refresh(name)?;
        let name = linked.as_ref().unwrap_or(name);
        self.trim(name);
        Ok(self.as_in_memory(name).into_untold())
    }

    /// Changes a scroll. The change counts when its tickets are settled.
    ///
    /// # Errors
    /// The phext is damaged, the scroll is not as expected, the key was used for another write, the quota or
    /// the disk is full, or the system refuses.
    pub fn write(&mut self, name: &PhextName, write: &Write) -> Result<Pending<Written>, StoreError> {
        let (asked, linked) = (name, self.refresh(name)?);
        let name = linked.as_ref().unwrap_or(name);
        if self.cache.open(name).is_some_and(OpenPhext::is_unproven) {
            return Err(StoreError::Unwritable);
        }
        let clock = clock();
        if let Some(replay) = self.replay(name, asked, write, &clock)? {
            return Ok(replay);
        }
        let phext = self.cache.open(name).map_or(&self.empty, |open| &open.phext);
        check_expected(phext.scroll(&write.at), write.expected.as_ref())?;
        let written = Written { bytes: answer_bytes(phext.scroll(&write.at), &write.edit), is_replay: false };
        let (before, after) = (phext.file_bytes(), phext.file_bytes_after(&write.at, &write.edit));
        check_coordinate(phext.scroll(&write.at), write, self.limits.coordinate)?;
        let Some(entry) = entry(phext, write, written.bytes)? else { return Ok(self.pending(name, written)) };
        self.check_count(name, before, after, &clock)?;
        self.check_quota(before, after, &clock)?;
        self.check_room(name, before, after, &clock)?;
        let text_bytes = write.edit.text().len() as u64;
        self.check_queue(text_bytes)?;
        let demand = Demand { text_bytes, takes_room: after > before, frees_room: after < before };
        self.check_journals(name, demand, &clock)?;
        self.reopen_unwritable(name)?;
        self.log(name, &entry, after <= before, &clock);
        self.trim(name);
        Ok(self.pending(name, written))
    }

    /// A scroll with all its writes, durable or not, right after one was made.
    pub fn latest_scroll(&self, name: &PhextName, at: &Coordinate) -> &str {
        let linked = || linked(&*self.disk, name).ok().flatten();
        let open = self.cache.open(name).or_else(|| self.cache.open(&linked()?));
        open.map_or("", |open| open.phext.scroll(at))
    }

    /// Whether all that these tickets stand for is on disk.
    ///
    /// # Errors
    /// It never will be: the disk did not take it, or has failed.
    pub fn is_settled(&self, tickets: &[Ticket]) -> Result<bool, StoreError> {
        if self.is_in_doubt {
            return Err(StoreError::InDoubt);
        }
        if let Some(refusal) = tickets.iter().find_map(|ticket| ticket.fate.refusal()) {
            return Err(match refusal {
                Refusal::Full => self.disk_full(),
                Refusal::Unwritable => StoreError::Unwritable,
                Refusal::Blocked => StoreError::Blocked,
                Refusal::Failed(kind) => StoreError::Io(kind.into()),
            });
        }
        // What has left memory is durable, and no answer waits for its save.
        Ok(tickets
            .iter()
            .all(|ticket| self.cache.open(&ticket.name).is_none_or(|open| open.is_settled(ticket))))
    }

    fn fail(&mut self, error: &io::Error) {
        self.check_directory();
        if !self.is_displaced {
            tracing::error!(%error, "the disk failed: nothing is acknowledged before it has been read again");
        }
        self.is_in_doubt = true;
    }

    fn pending<T>(&self, name: &PhextName, value: T) -> Pending<T> {
        let ticket = self.cache.open(name).and_then(OpenPhext::ticket);
        Pending { value, tickets: ticket.into_iter().collect() }
    }

    /// What was answered when the write's key came before. It rests on that write, and on none that came later.
    fn replay(
        &mut self,
        name: &PhextName,
        asked: &PhextName,
        write: &Write,
        clock: &Clock,
    ) -> Result<Option<Pending<Written>>, StoreError> {
        self.load_keys(clock.now)?;
        let Some(key) = &write.repeat else { return Ok(None) };
        let of_phext = self.cache.open(name).and_then(|open| open.remembered(key, clock));
        // A link may stand now where the phext was when the key came first.
        let remembered = || [name, asked].iter().find_map(|name| self.keys.get(name, key, clock.now));
        let Some(known) = of_phext.or_else(remembered) else { return Ok(None) };
        if known.fingerprint != fingerprint(&write.at, &write.edit) {
            return Err(StoreError::KeyReused);
        }
        let written = Written { bytes: known.answer_bytes, is_replay: true };
        let ticket = self.cache.open(name).and_then(|open| open.ticket_of_key(key));
        Ok(Some(Pending::new(written, ticket.into_iter().collect())))
    }

    /// Applies an entry in memory, and queues it for the journal. One that frees room may use the reserve for it.
    fn log(&mut self, name: &PhextName, entry: &Entry<'_>, frees_room: bool, clock: &Clock) {
        if self.cache.open(name).is_none() {
            let visit = self.next_visit();
            let mut new = OpenPhext::new(name.clone(), visit, self.pace);
            if let Some(budget) = self.budgets.take(name) {
                new.set_budget(budget);
            }
            self.cache.insert(name.clone(), Content::Open(Box::new(new)));
        }
        self.active.insert(name.clone());
        if let Some(open) = self.cache.open_mut(name) {
            open.log(entry, frees_room, clock);
            self.usage.set(name, Some(open.files()));
        }
        self.cache.recount(name);
        self.keep_journals_short(clock.now);
        if let Some(quota) = self.limits.quota_bytes {
            self.usage.warn(quota);
        }
    }

    /// A journal that could only be read may have become writable since: before a write it is opened again.
    fn reopen_unwritable(&mut self, name: &PhextName) -> Result<(), StoreError> {
        let is_unwritable = |open: &OpenPhext| open.has_unwritable_journal() && open.is_quiet();
        if self.reopened.remove(name) || !self.cache.open(name).is_some_and(is_unwritable) {
            return Ok(());
        }
        self.reopened.insert(name.clone());
        self.forget(name);
        self.refresh(name)?;
        self.reopened.remove(name);
        Ok(())
    }

    fn next_visit(&mut self) -> u64 {
        self.visits += 1;
        self.visits
    }
}

/// What is to be written into the journal; `None` when nothing changes and nobody will ask again.
fn entry<'a>(phext: &Phext, write: &'a Write, answer_bytes: u64) -> Result<Option<Entry<'a>>, StoreError> {
    let Write { at, edit, repeat, .. } = write;
    let bytes = edit.text().len();
    if bytes > TEXT_BYTES {
        return Err(StoreError::TextTooLong { bytes });
    }
    if !phext.is_unchanged_by(at, edit) {
        let (at, edit, repeat) = (*at, Cow::Borrowed(edit), *repeat);
        return Ok(Some(Entry::Edit { at, edit, answer_bytes, repeat }));
    }
    // To apply twice what changes nothing is no harm, as long as the client has no answer yet: so the
    // gateway's own key need not be remembered.
    let key = repeat.filter(|key| key.origin == KeyOrigin::Client);
    Ok(key.map(|key| Entry::Repeat { key, fingerprint: fingerprint(at, edit), answer_bytes }))
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
