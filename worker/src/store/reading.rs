//! How phexts come into memory, and the keys of those without journals. A store that serves requests has their files read
//! by jobs: a disk that stalls then holds up those alone who wait for what only the disk has.
//!
//! While such a job is under way nothing else touches the phext's files, for it is not in memory, and whoever needs it
//! there waits. One that another program has changed while it was in memory is read at once: its own jobs could be at work
//! on its files a moment later.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sq_shared::phext_name::PhextName;

use crate::store::cache::{Content, DamagedPhext};
use crate::store::disk::{Disk, FileName};
use crate::store::job::{Job, Task};
use crate::store::keys::FoundKeys;
use crate::store::open_phext::OpenPhext;
use crate::store::recovery::{Damage, PhextFiles, Recovered, RecoveryError, recover};
use crate::store::usage::Files;
use crate::store::{Store, StoreError};

/// How long what was read stays for whoever asked for it: in memory, though others may need the room, or as the system's
/// reason why it could not be read. Whoever has not come by then has gone.
pub(super) const STAYS: Duration = Duration::from_secs(1);

/// Files of more bytes than this are read one phext at a time: what is read is in no account of memory before its end.
pub(super) const LARGE_BYTES: u64 = 1024 * 1024;

/// Most phexts whose files are shorter that are read at once.
pub(super) const SHORT_AT_ONCE: usize = 8;

/// What must be read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Phext(PhextName),
    Keys,
}

/// What is to be read by jobs, and what came of the last one that failed.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// In the order in which they were asked for.
    waiting: VecDeque<Read>,
    under_way: Vec<Read>,
    /// In memory, and not asked for since they were read.
    awaited: Vec<(PhextName, Instant)>,
    failed: Option<(Wanted, Instant, io::Error)>,
}

#[derive(Debug, Clone)]
struct Read {
    wanted: Wanted,
    is_large: bool,
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

impl Reads {
    /// Whether nothing waits or is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    fn includes(&self, wanted: &Wanted) -> bool {
        self.waiting.iter().chain(&self.under_way).any(|read| read.wanted == *wanted)
    }

    /// What has waited longest of all that may begin.
    fn begin_next(&mut self) -> Option<Wanted> {
        let may_begin = |read: &Read| {
            let of_kind = self.under_way.iter().filter(|other| other.is_large == read.is_large).count();
            of_kind < if read.is_large { 1 } else { SHORT_AT_ONCE }
        };
        let read = self.waiting.remove(self.waiting.iter().position(may_begin)?)?;
        let wanted = read.wanted.clone();
        self.under_way.push(read);
        Some(wanted)
    }

    fn end(&mut self, wanted: Wanted, error: Option<io::Error>) {
        let now = Instant::now();
        self.under_way.retain(|read| read.wanted != wanted);
        self.awaited.retain(|(_, since)| now.saturating_duration_since(*since) < STAYS);
        match (wanted, error) {
            (wanted, Some(error)) => self.failed = Some((wanted, now, error)),
            (Wanted::Phext(name), None) => self.awaited.push((name, now)),
            (Wanted::Keys, None) => {}
        }
    }

    fn is_awaited(&self, name: &PhextName) -> bool {
        self.awaited.iter().any(|(awaited, since)| awaited == name && since.elapsed() < STAYS)
    }

    fn note_used(&mut self, name: &PhextName) {
        if !self.awaited.is_empty() {
            self.awaited.retain(|(awaited, _)| awaited != name);
        }
    }

    /// Why the last job could not read this, if it was just tried.
    fn take_failure(&mut self, wanted: &Wanted) -> Option<io::Error> {
        let (failed, at, error) = self.failed.take()?;
        if failed == *wanted {
            return (at.elapsed() < STAYS).then_some(error);
        }
        self.failed = Some((failed, at, error));
        None
    }
}

#[cfg(test)]
impl Reads {
    /// So much time has passed since the last jobs.
    pub(super) fn age(&mut self, age: Duration) {
        let failed = self.failed.iter_mut().map(|(_, at, _)| at);
        failed.chain(self.awaited.iter_mut().map(|(_, since)| since)).for_each(|at| *at -= age);
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
    /// Files are read by jobs, but for those of a phext that is in memory: until such a job has ended, whoever needs what
    /// it reads is told [`StoreError::NotYet`].
    #[must_use]
    pub fn reading_in_jobs(self) -> Self {
        Self { reads: Some(Reads::default()), ..self }
    }

    /// Brings what is in memory up to date with the disk.
    pub(super) fn refresh(&mut self, name: &PhextName) -> Result<(), StoreError> {
        if self.is_in_doubt {
            return Err(StoreError::InDoubt);
        }
        self.cache.touch(name);
        if self.is_current(name)? {
            if let Some(reads) = &mut self.reads {
                reads.note_used(name);
            }
            return Ok(());
        }
        self.check_reads(&Wanted::Phext(name.clone()))?;
        self.make_room(name)?;
        if self.cache.open(name).is_some() {
            self.forget(name);
        } else if self.reads.is_some()
            && let files = PhextFiles::of(&*self.disk, name)?
            && files.are_any()
        {
            let Files { text_bytes, spare_bytes } = files.lengths();
            let is_large = text_bytes.saturating_add(spare_bytes) > LARGE_BYTES;
            return self.want(Read { wanted: Wanted::Phext(name.clone()), is_large });
        }
        let found = FoundPhext::read(&*self.disk, name, self.limits.quota_bytes)?;
        self.take_in(name, found)
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
                // Jobs hold its files: it is read anew when they are done.
                if open.is_quiet() { Ok(false) } else { Err(StoreError::NotYet) }
            }
        }
    }

    /// Whether somebody is about to come for a phext that was just read: to give its place to another one would let
    /// requests drive out each other's phexts and never be served.
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
            return self.want(Read { wanted: Wanted::Keys, is_large: false });
        }
        Ok(self.keys.take_in(FoundKeys::read(&*self.disk, now)?)?)
    }

    /// What is known of a job that reads this.
    fn check_reads(&mut self, wanted: &Wanted) -> Result<(), StoreError> {
        let Some(reads) = &mut self.reads else { return Ok(()) };
        if reads.includes(wanted) {
            return Err(StoreError::NotYet);
        }
        reads.take_failure(wanted).map_or(Ok(()), |error| Err(error.into()))
    }

    fn want(&mut self, read: Read) -> Result<(), StoreError> {
        if let Some(reads) = &mut self.reads {
            reads.waiting.push_back(read);
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

    /// Takes in what was read. Damage is remembered, and whoever asks again is told of it.
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
