//! Loads phexts into memory, and the retired keys. A store that serves requests has their files read by jobs: a stalled
//! disk then delays only the requests that need data from it.
//!
//! While such a job is under way nothing else touches the phext's files, for it is not in memory, and every request that
//! needs it waits. A phext in memory that another program has changed is read on the store's own thread: its own jobs could
//! be working on its files a moment later.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use sq_shared::phext_name::PhextName;

use crate::store::cache::{Content, DamagedPhext};
use crate::store::damage::Damage;
use crate::store::disk::{Disk, FileName};
use crate::store::job::{Job, Task};
use crate::store::links::resolve_link;
use crate::store::open_phext::OpenPhext;
use crate::store::recovery::{PhextFiles, Recovered, RecoveryError, recover};
use crate::store::retired_keys::FoundKeys;
use crate::store::usage::Files;
use crate::store::{Store, StoreError};

/// How long the result of a read is kept for the request that waits for it: the phext in memory, though others need the
/// memory, or the reason why it could not be read. A request that has not come back for so long counts as gone.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(1);

/// Files of more bytes than this are read one phext at a time: the memory that a read takes is not counted before its end,
/// and may be some twenty times as much, if the scrolls have one letter each.
pub(super) const LARGE_BYTES: u64 = 128 * 1024;

/// Most phexts with shorter files that are read at once.
pub(super) const SHORT_AT_ONCE: usize = 8;

/// Most reads that wait. Requests for more are tried again.
pub(super) const WAITING: usize = 256;

const FAILURES: usize = 64;

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Phext(PhextName),
    Keys,
}

/// Reads of one kind share a limit, so that slow ones delay no other kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Keys,
    Short,
    Large,
}

/// What jobs read, and the results of the last ones.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// In the order of the requests.
    waiting: VecDeque<Read>,
    under_way: Vec<Read>,
    /// In memory, and not used since they were read: no more than are read at once.
    awaited: VecDeque<Read>,
    failed: VecDeque<Failure>,
}

#[derive(Debug, Clone)]
struct Read {
    target: Target,
    kind: Kind,
    /// When a request last wanted it, or when it was read.
    at: Instant,
}

#[derive(Debug)]
struct Failure {
    target: Target,
    at: Instant,
    error: io::Error,
}

/// A job that reads files.
#[derive(Debug)]
pub(super) struct ReadJob {
    target: Target,
    quota_bytes: Option<u64>,
}

/// The result of a [`ReadJob`].
#[derive(Debug)]
pub(super) struct ReadDone {
    target: Target,
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
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// Whether a job may begin.
    pub(super) fn is_any_due(&self) -> bool {
        self.next().is_some()
    }

    /// Drops what no job has begun to read.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Notes that a request wants it, and gives whether it waits to be read, or is being read.
    fn is_pending(&mut self, target: &Target) -> bool {
        if let Some(read) = self.waiting.iter_mut().find(|read| read.target == *target) {
            read.at = Instant::now();
            return true;
        }
        self.under_way.iter().any(|read| read.target == *target)
    }

    fn want(&mut self, target: Target, kind: Kind) {
        if self.waiting.len() >= WAITING {
            self.waiting.retain(Read::is_recent);
        }
        if self.waiting.len() < WAITING {
            self.waiting.push_back(Read { target, kind, at: Instant::now() });
        }
    }

    fn next(&self) -> Option<usize> {
        self.waiting.iter().position(|read| {
            let of_kind = self.under_way.iter().filter(|other| other.kind == read.kind).count();
            of_kind < read.kind.most_at_once()
        })
    }

    /// Begins the next read that a request still waits for.
    fn begin_next(&mut self) -> Option<Target> {
        loop {
            let read = self.waiting.remove(self.next()?)?;
            if read.is_recent() {
                let target = read.target.clone();
                self.under_way.push(read);
                return Some(target);
            }
        }
    }

    fn end(&mut self, target: Target, error: Option<io::Error>) {
        let Some(index) = self.under_way.iter().position(|read| read.target == target) else { return };
        let (read, at) = (self.under_way.swap_remove(index), Instant::now());
        match error {
            Some(error) => {
                self.failed.retain(|failure| failure.target != target);
                self.failed.truncate(FAILURES - 1);
                self.failed.push_front(Failure { target, at, error });
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

    /// Whether a request is about to use a phext that was just read for it.
    pub(super) fn is_awaited(&self, name: &PhextName) -> bool {
        let is_it = |read: &Read| matches!(&read.target, Target::Phext(target) if target == name);
        self.awaited.iter().any(|read| is_it(read) && read.is_recent())
    }

    fn note_used(&mut self, name: &PhextName) {
        if !self.awaited.is_empty() {
            self.awaited.retain(|read| !matches!(&read.target, Target::Phext(target) if target == name));
        }
    }

    fn failure(&self, target: &Target) -> Option<io::Error> {
        let failure = self.failed.iter().find(|failure| failure.target == *target)?;
        let again = || io::Error::new(failure.error.kind(), failure.error.to_string());
        let error = failure.error.raw_os_error().map_or_else(again, io::Error::from_raw_os_error);
        (failure.at.elapsed() < KEPT_FOR).then_some(error)
    }
}

#[cfg(test)]
impl Reads {
    /// Makes everything so much older.
    pub(super) fn age(&mut self, age: Duration) {
        let reads = self.waiting.iter_mut().chain(&mut self.awaited).map(|read| &mut read.at);
        reads.chain(self.failed.iter_mut().map(|failure| &mut failure.at)).for_each(|at| *at -= age);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl ReadJob {
    /// Does the work, and blocks until the disk has answered.
    pub(super) fn run(self, disk: &dyn Disk) -> ReadDone {
        let Self { target, quota_bytes } = self;
        let found = match &target {
            Target::Phext(name) => FoundPhext::read(disk, name, quota_bytes)
                .map(|found| Found::Phext(name.clone(), Box::new(found))),
            Target::Keys => FoundKeys::read(disk, Instant::now()).map(Found::Keys),
        };
        ReadDone { target, found }
    }
}

impl FoundPhext {
    fn read(disk: &dyn Disk, name: &PhextName, quota_bytes: Option<u64>) -> io::Result<Self> {
        let files = PhextFiles::find(disk, name)?;
        let content = match recover(disk, name, quota_bytes) {
            Ok(recovered) => Ok(recovered),
            Err(RecoveryError::Damaged(damage)) => Err(damage),
            Err(RecoveryError::Io(error)) => return Err(error),
        };
        Ok(Self { files, quota_bytes, content })
    }
}

impl Store {
    /// Lets jobs read the files of phexts that are not in memory: until such a job has ended, an operation that needs what it
    /// reads fails with [`StoreError::NotYet`].
    #[must_use]
    pub fn with_read_jobs(self) -> Self {
        Self { reads: Some(Reads::default()), ..self }
    }

    /// Brings what is in memory up to date with the disk. Gives the phext's own name where this one is a link's.
    pub(super) fn refresh(&mut self, name: &PhextName) -> Result<Option<PhextName>, StoreError> {
        if self.is_in_doubt() {
            return Err(StoreError::InDoubt);
        }
        self.cache.touch_if(name, |_| true);
        if self.is_current(name)? {
            if let Some(reads) = &mut self.reads {
                reads.note_used(name);
            }
            return Ok(None);
        }
        if let Some(target) = resolve_link(&*self.disk, name)? {
            self.cache.remove(name);
            self.refresh(&target)?;
            return Ok(Some(target));
        }
        self.load_files(name)?;
        Ok(None)
    }

    /// Reads a phext's files into memory, or has a job do that.
    fn load_files(&mut self, name: &PhextName) -> Result<(), StoreError> {
        self.check_reads(&Target::Phext(name.clone()))?;
        self.forget_moved(name)?;
        self.evict_for(name)?;
        if self.cache.open(name).is_some() {
            self.cache.remove(name);
        } else if self.reads.is_some()
            && let files = PhextFiles::find(&*self.disk, name)?
            && files.are_any()
        {
            let Files { text_bytes, spare_bytes } = files.lengths();
            let is_large = text_bytes.saturating_add(spare_bytes) > LARGE_BYTES;
            let kind = if is_large { Kind::Large } else { Kind::Short };
            return self.want(Target::Phext(name.clone()), kind);
        }
        let found = FoundPhext::read(&*self.disk, name, self.usage.quota_bytes)?;
        self.install(name, found)
    }

    /// A folder may be renamed: then its phexts leave memory under their old names, so that each has one journal at a time.
    fn forget_moved(&mut self, name: &PhextName) -> Result<(), StoreError> {
        if name.folder().is_none() {
            return Ok(());
        }
        let Some(file) = self.disk.identity(&FileName::Phext(name.clone()))? else { return Ok(()) };
        let is_moved = |other: &&PhextName| {
            let known = self.cache.open(other).and_then(|open| open.file);
            *other != name && other.folder().is_some() && known.is_some_and(|known| known.inode == file.inode)
        };
        let moved: Vec<PhextName> = self.cache.names().filter(is_moved).cloned().collect();
        for other in moved {
            // One that is there still is a second name of the file (hard link).
            if self.disk.identity(&FileName::Phext(other.clone()))?.is_some() {
                continue;
            }
            if self.cache.open(&other).is_some_and(|open| !open.is_idle()) {
                return Err(StoreError::NotYet);
            }
            self.cache.remove(&other);
        }
        Ok(())
    }

    /// Whether what is in memory is what is on disk. What is known to be damaged is an error.
    fn is_current(&self, name: &PhextName) -> Result<bool, StoreError> {
        let identity = || self.disk.identity(&FileName::Phext(name.clone()));
        match self.cache.get(name) {
            None | Some(Content::Evicted(_)) => Ok(false),
            Some(Content::Damaged(known)) => {
                let is_same = known.files == PhextFiles::find(&*self.disk, name)?;
                if is_same && known.quota_bytes == self.usage.quota_bytes {
                    return Err(known.damage.clone().into());
                }
                Ok(false)
            }
            Some(Content::Open(open)) => {
                if open.is_own_file(identity()?) && !open.must_reload {
                    return Ok(true);
                }
                // Jobs hold its files: it is read again when they are done.
                if open.is_idle() { Ok(false) } else { Err(StoreError::NotYet) }
            }
        }
    }

    fn install(&mut self, name: &PhextName, found: FoundPhext) -> Result<(), StoreError> {
        let FoundPhext { files, quota_bytes, content } = found;
        let evicted = match self.cache.remove(name) {
            Some(Content::Evicted(evicted)) => Some(evicted),
            Some(Content::Open(_) | Content::Damaged(_)) | None => None,
        };
        match content {
            Ok(None) => {
                self.usage.set(name, None);
                Ok(())
            }
            Ok(Some(recovered)) => {
                let mut open =
                    OpenPhext::from_recovered(name.clone(), self.tuning, recovered, Instant::now());
                if let Some(evicted) = evicted {
                    open.resume(&evicted);
                }
                self.usage.set(name, Some(open.files()));
                self.cache.insert(name, Content::Open(Box::new(open)));
                Ok(())
            }
            Err(damage) => {
                tracing::error!(phext = %name, %damage, "a phext is damaged; not serving it until its files change");
                self.usage.set(name, Some(files.lengths()));
                let damaged = DamagedPhext { files, damage: damage.clone(), quota_bytes };
                self.cache.insert(name, Content::Damaged(Box::new(damaged)));
                Err(damage.into())
            }
        }
    }

    /// Loads the retired keys.
    pub(super) fn load_keys(&mut self, now: Instant) -> Result<(), StoreError> {
        if self.keys.are_known(&*self.disk)? {
            return Ok(());
        }
        self.check_reads(&Target::Keys)?;
        if self.reads.is_some() && self.disk.identity(&FileName::Keys)?.is_some() {
            return self.want(Target::Keys, Kind::Keys);
        }
        Ok(self.keys.install(FoundKeys::read(&*self.disk, now)?)?)
    }

    /// Fails if this waits to be read, is being read, or could not be read a moment ago.
    fn check_reads(&mut self, target: &Target) -> Result<(), StoreError> {
        let Some(reads) = &mut self.reads else { return Ok(()) };
        if reads.is_pending(target) {
            return Err(StoreError::NotYet);
        }
        reads.failure(target).map_or(Ok(()), |error| Err(error.into()))
    }

    fn want(&mut self, target: Target, kind: Kind) -> Result<(), StoreError> {
        if let Some(reads) = &mut self.reads {
            reads.want(target, kind);
        }
        Err(StoreError::NotYet)
    }

    /// The jobs that read what requests wait for.
    pub(super) fn next_reads(&mut self) -> Vec<Job> {
        let (disk, reserve, quota_bytes) = (&self.disk, &self.reserve, self.usage.quota_bytes);
        let job = |target| Job::new(disk, reserve, Task::Read(ReadJob { target, quota_bytes }));
        let Some(reads) = &mut self.reads else { return Vec::new() };
        std::iter::from_fn(|| reads.begin_next()).map(job).collect()
    }

    /// Applies the result of a read. Damage is remembered, and reported to the requests for it.
    pub(super) fn finish_read(&mut self, ReadDone { target, found }: ReadDone) {
        let error = match found {
            Ok(Found::Phext(name, found)) => {
                let _ = self.install(&name, *found);
                self.evict_others(&name);
                None
            }
            Ok(Found::Keys(found)) => {
                let _ = self.keys.install(found);
                None
            }
            Err(error) => Some(error),
        };
        if let Some(reads) = &mut self.reads {
            reads.end(target, error);
        }
    }
}
