//! How phexts come into memory, and the keys of those without journals. A store that serves requests has their files read
//! by jobs: a stalled disk then delays only the requests that need data from it.
//!
//! While such a job is under way nothing else touches the phext's files, for it is not in memory, and every request that
//! needs it there waits. One that another program has changed while it was in memory is read at once: its own jobs could be
//! at work on its files a moment later.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sq_shared::phext_name::PhextName;

use crate::store::cache::{Content, DamagedPhext};
use crate::store::damage::Damage;
use crate::store::disk::{Disk, FileName};
use crate::store::job::{Job, Task};
use crate::store::keys::FoundKeys;
use crate::store::links::linked;
use crate::store::open_phext::OpenPhext;
use crate::store::recovery::{PhextFiles, Recovered, RecoveryError, recover};
use crate::store::usage::Files;
use crate::store::{Store, StoreError};

/// How long what was read stays for the request that waits for it: in memory, though others need the room, or as the reason
/// why it could not be read. As long a request that has not asked again counts as gone.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(1);

/// Files of more bytes than this are read one phext at a time: what is read is in no account of memory before its end, and
/// takes up to some twenty times as much there, if its scrolls are of one letter each.
pub(super) const LARGE_BYTES: u64 = 128 * 1024;

/// Most phexts whose files are shorter that are read at once.
pub(super) const SHORT_AT_ONCE: usize = 8;

/// Most reads that wait. Requests for more ask again.
pub(super) const WAITING: usize = 256;

/// Most errors that are kept.
const FAILURES: usize = 64;

/// What must be read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Phext(PhextName),
    Keys,
}

/// What of it counts together, so that slow ones of one kind delay no other kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Keys,
    Short,
    Large,
}

/// What is to be read by jobs, and what came of the last ones.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// In the order in which they were asked for.
    waiting: VecDeque<Read>,
    under_way: Vec<Read>,
    /// In memory, and not asked for since they were read: at most as many as are read at once.
    awaited: VecDeque<Read>,
    failed: VecDeque<Failure>,
}

#[derive(Debug, Clone)]
struct Read {
    wanted: Wanted,
    kind: Kind,
    /// When it was last asked for, or was read.
    at: Instant,
}

#[derive(Debug)]
struct Failure {
    wanted: Wanted,
    at: Instant,
    error: io::Error,
}

/// Reads what is wanted.
#[derive(Debug)]
pub(super) struct ReadJob {
    wanted: Wanted,
    quota_bytes: Option<u64>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct ReadDone {
    wanted: Wanted,
    found: io::Result<Found>,
}

#[derive(Debug)]
enum Found {
    Phext(PhextName, Box<FoundPhext>),
    Keys(FoundKeys),
}

/// A phext's files, and what they hold.
#[derive(Debug)]
struct FoundPhext {
    files: PhextFiles,
    quota_bytes: Option<u64>,
    content: Result<Option<Recovered>, Damage>,
}

impl Kind {
    fn most_at_once(self) -> usize {
        match self {
            Self::Keys | Self::Large => 1,
            Self::Short => SHORT_AT_ONCE,
        }
    }
}

impl Read {
    fn is_recent(&self) -> bool {
        self.at.elapsed() < KEPT_FOR
    }
}

impl Reads {
    /// Whether nothing waits or is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// Whether a job may begin.
    pub(super) fn is_any_due(&self) -> bool {
        self.next().is_some()
    }

    /// Gives up what no job has begun to read.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Notes that it is asked for; whether it will be read already.
    fn ask_again(&mut self, wanted: &Wanted) -> bool {
        if let Some(read) = self.waiting.iter_mut().find(|read| read.wanted == *wanted) {
            read.at = Instant::now();
            return true;
        }
        self.under_way.iter().any(|read| read.wanted == *wanted)
    }

    fn want(&mut self, wanted: Wanted, kind: Kind) {
        if self.waiting.len() >= WAITING {
            self.waiting.retain(Read::is_recent);
        }
        if self.waiting.len() < WAITING {
            self.waiting.push_back(Read { wanted, kind, at: Instant::now() });
        }
    }

    /// The place of what has waited longest of all that may begin.
    fn next(&self) -> Option<usize> {
        self.waiting.iter().position(|read| {
            let of_kind = self.under_way.iter().filter(|other| other.kind == read.kind).count();
            of_kind < read.kind.most_at_once()
        })
    }

    /// Begins the next read that a request still waits for.
    fn begin_next(&mut self) -> Option<Wanted> {
        loop {
            let read = self.waiting.remove(self.next()?)?;
            if read.is_recent() {
                let wanted = read.wanted.clone();
                self.under_way.push(read);
                return Some(wanted);
            }
        }
    }

    fn end(&mut self, wanted: Wanted, error: Option<io::Error>) {
        let Some(index) = self.under_way.iter().position(|read| read.wanted == wanted) else { return };
        let (read, at) = (self.under_way.swap_remove(index), Instant::now());
        match error {
            Some(error) => {
                self.failed.retain(|failure| failure.wanted != wanted);
                self.failed.truncate(FAILURES - 1);
                self.failed.push_front(Failure { wanted, at, error });
            }
            None => {
                let (kind, mut places) = (read.kind, read.kind.most_at_once());
                self.awaited.push_front(Read { at, ..read });
                self.awaited.retain(|other| {
                    let is_counted = other.kind == kind;
                    let has_place = !is_counted || places > 0;
                    places = places.saturating_sub(usize::from(is_counted));
                    has_place && other.is_recent()
                });
            }
        }
    }

    fn is_awaited(&self, name: &PhextName) -> bool {
        let is_it = |read: &Read| matches!(&read.wanted, Wanted::Phext(wanted) if wanted == name);
        self.awaited.iter().any(|read| is_it(read) && read.is_recent())
    }

    fn note_used(&mut self, name: &PhextName) {
        if !self.awaited.is_empty() {
            self.awaited.retain(|read| !matches!(&read.wanted, Wanted::Phext(wanted) if wanted == name));
        }
    }

    /// Why this could not be read a moment ago.
    fn failure(&self, wanted: &Wanted) -> Option<io::Error> {
        let failure = self.failed.iter().find(|failure| failure.wanted == *wanted)?;
        let again = || io::Error::new(failure.error.kind(), failure.error.to_string());
        let error = failure.error.raw_os_error().map_or_else(again, io::Error::from_raw_os_error);
        (failure.at.elapsed() < KEPT_FOR).then_some(error)
    }
}

#[cfg(test)]
impl Reads {
    /// So much time has passed since anything was asked for or read.
    pub(super) fn age(&mut self, age: Duration) {
        let reads = self.waiting.iter_mut().chain(&mut self.awaited).map(|read| &mut read.at);
        reads.chain(self.failed.iter_mut().map(|failure| &mut failure.at)).for_each(|at| *at -= age);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl ReadJob {
    /// Does it; it may take long.
    pub(super) fn run(self, disk: &dyn Disk) -> ReadDone {
        let Self { wanted, quota_bytes } = self;
        let found = match &wanted {
            Wanted::Phext(name) => FoundPhext::read(disk, name, quota_bytes)
                .map(|found| Found::Phext(name.clone(), Box::new(found))),
            Wanted::Keys => FoundKeys::read(disk, Instant::now()).map(Found::Keys),
        };
        ReadDone { wanted, found }
    }
}

impl FoundPhext {
    fn read(disk: &dyn Disk, name: &PhextName, quota_bytes: Option<u64>) -> io::Result<Self> {
        let files = PhextFiles::of(disk, name)?;
        let content = match recover(disk, name, quota_bytes) {
            Ok(recovered) => Ok(recovered),
            Err(RecoveryError::Damaged(damage)) => Err(damage),
            Err(RecoveryError::Io(error)) => return Err(error),
        };
        Ok(Self { files, quota_bytes, content })
    }
}

impl Store {
    /// Files are read by jobs, but for those of a phext that is in memory: until such a job has ended, an operation that
    /// needs what it reads gives [`StoreError::NotYet`].
    #[must_use]
    pub fn reading_in_jobs(self) -> Self {
        Self { reads: Some(Reads::default()), ..self }
    }

    /// Brings what is in memory up to date with the disk. Gives the phext's own name where this one is a link's.
    pub(super) fn refresh(&mut self, name: &PhextName) -> Result<Option<PhextName>, StoreError> {
        if self.is_in_doubt {
            return Err(StoreError::InDoubt);
        }
        self.cache.touch(name);
        if self.is_current(name)? {
            if let Some(reads) = &mut self.reads {
                reads.note_used(name);
            }
            return Ok(None);
        }
        if let Some(target) = linked(&*self.disk, name)? {
            if self.cache.open(name).is_some() {
                self.forget(name);
            } else {
                self.take_parked(name);
            }
            self.refresh(&target)?;
            return Ok(Some(target));
        }
        self.read_in(name)?;
        Ok(None)
    }

    /// Reads a phext's files into memory, or has that done.
    fn read_in(&mut self, name: &PhextName) -> Result<(), StoreError> {
        self.check_reads(&Wanted::Phext(name.clone()))?;
        self.forget_moved(name)?;
        self.make_room(name)?;
        if self.cache.open(name).is_some() {
            self.forget(name);
        } else if self.reads.is_some()
            && let files = PhextFiles::of(&*self.disk, name)?
            && files.are_any()
        {
            let Files { text_bytes, spare_bytes } = files.lengths();
            let is_large = text_bytes.saturating_add(spare_bytes) > LARGE_BYTES;
            let kind = if is_large { Kind::Large } else { Kind::Short };
            return self.want(Wanted::Phext(name.clone()), kind);
        }
        let found = FoundPhext::read(&*self.disk, name, self.limits.quota_bytes)?;
        self.take_in(name, found)
    }

    /// A folder may get another name: then its phext leaves memory under the one before, and has one journal at a time.
    fn forget_moved(&mut self, name: &PhextName) -> Result<(), StoreError> {
        if name.folder().is_none() {
            return Ok(());
        }
        let Some(file) = self.disk.identity(&FileName::Phext(name.clone()))? else { return Ok(()) };
        let is_moved = |other: &&PhextName| {
            let known = self.cache.open(other).and_then(OpenPhext::file);
            *other != name && other.folder().is_some() && known.is_some_and(|known| known.inode == file.inode)
        };
        let moved: Vec<PhextName> = self.cache.names().filter(is_moved).cloned().collect();
        for other in moved {
            // One that is there still is a second name of the file (hard link).
            if self.disk.identity(&FileName::Phext(other.clone()))?.is_some() {
                continue;
            }
            if self.cache.open(&other).is_some_and(|open| !open.is_quiet()) {
                return Err(StoreError::NotYet);
            }
            self.forget(&other);
        }
        Ok(())
    }

    /// Whether what is in memory is what is on disk. What is known to be damaged is an error.
    fn is_current(&self, name: &PhextName) -> Result<bool, StoreError> {
        let identity = || self.disk.identity(&FileName::Phext(name.clone()));
        match self.cache.get(name) {
            None | Some(Content::Parked(_)) => Ok(false),
            Some(Content::Damaged(known)) => {
                let is_same = known.files == PhextFiles::of(&*self.disk, name)?;
                if is_same && known.quota_bytes == self.limits.quota_bytes {
                    return Err(known.damage.clone().into());
                }
                Ok(false)
            }
            Some(Content::Open(open)) => {
                if open.is_own_file(identity()?) && !open.is_superseded() {
                    return Ok(true);
                }
                // Jobs hold its files: it is read again when they are done.
                if open.is_quiet() { Ok(false) } else { Err(StoreError::NotYet) }
            }
        }
    }

    /// Whether a request is about to ask for a phext that was just read for it. If another one could take its place,
    /// requests would drive out each other's phexts and never be served.
    pub(super) fn is_awaited(&self, name: &PhextName) -> bool {
        self.reads.as_ref().is_some_and(|reads| reads.is_awaited(name))
    }

    fn take_in(&mut self, name: &PhextName, found: FoundPhext) -> Result<(), StoreError> {
        let FoundPhext { files, quota_bytes, content } = found;
        let parked = self.take_parked(name);
        match content {
            Ok(None) => {
                self.usage.set(name, None);
                Ok(())
            }
            Ok(Some(recovered)) => {
                let visit = self.next_visit();
                let mut open =
                    OpenPhext::from_recovered(name.clone(), visit, self.pace, recovered, Instant::now());
                if let Some(budget) = self.budgets.take(name) {
                    open.set_budget(budget);
                }
                if let Some(parked) = parked {
                    open.unpark(*parked);
                }
                self.usage.set(name, Some(open.files()));
                self.active.insert(name.clone());
                self.cache.insert(name.clone(), Content::Open(Box::new(open)));
                Ok(())
            }
            Err(damage) => {
                tracing::error!(phext = %name, %damage, "a phext is damaged, and is left alone");
                self.usage.set(name, Some(files.lengths()));
                let damaged = DamagedPhext { files, damage: damage.clone(), quota_bytes };
                self.cache.insert(name.clone(), Content::Damaged(Box::new(damaged)));
                Err(damage.into())
            }
        }
    }

    /// Has the keys of phexts without journals in memory.
    pub(super) fn load_keys(&mut self, now: Instant) -> Result<(), StoreError> {
        if self.keys.are_known(&*self.disk)? {
            return Ok(());
        }
        self.check_reads(&Wanted::Keys)?;
        if self.reads.is_some() && self.disk.identity(&FileName::Keys)?.is_some() {
            return self.want(Wanted::Keys, Kind::Keys);
        }
        Ok(self.keys.take_in(FoundKeys::read(&*self.disk, now)?)?)
    }

    /// What is known of a job that reads this.
    fn check_reads(&mut self, wanted: &Wanted) -> Result<(), StoreError> {
        let Some(reads) = &mut self.reads else { return Ok(()) };
        if reads.ask_again(wanted) {
            return Err(StoreError::NotYet);
        }
        reads.failure(wanted).map_or(Ok(()), |error| Err(error.into()))
    }

    fn want(&mut self, wanted: Wanted, kind: Kind) -> Result<(), StoreError> {
        if let Some(reads) = &mut self.reads {
            reads.want(wanted, kind);
        }
        Err(StoreError::NotYet)
    }

    /// The jobs that read what is wanted.
    pub(super) fn next_reads(&mut self) -> Vec<Job> {
        let (disk, reserve, quota_bytes) = (&self.disk, &self.reserve, self.limits.quota_bytes);
        let job = |wanted| {
            let task = Task::Read(ReadJob { wanted, quota_bytes });
            Job { disk: Arc::clone(disk), reserve: Arc::clone(reserve), task }
        };
        let Some(reads) = &mut self.reads else { return Vec::new() };
        std::iter::from_fn(|| reads.begin_next()).map(job).collect()
    }

    /// Takes in what was read. Damage is remembered, and given to those who ask again.
    pub(super) fn finish_read(&mut self, ReadDone { wanted, found }: ReadDone) {
        let error = match found {
            Ok(Found::Phext(name, found)) => {
                let _ = self.take_in(&name, *found);
                self.trim(&name);
                None
            }
            Ok(Found::Keys(found)) => {
                let _ = self.keys.take_in(found);
                None
            }
            Err(error) => Some(error),
        };
        if let Some(reads) = &mut self.reads {
            reads.end(wanted, error);
        }
    }
}
