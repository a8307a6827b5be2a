//! How much a tenant uses, and whether a write fits into its quota: an account with a row per phext.
//!
//! Each change that the store makes or sees is entered at once. What other programs do to phexts that are not in memory
//! shows when a [`Scan`] compares the directory with the account, on its own thread. The first write waits for the first
//! scan; later ones never wait, except before they are refused.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sq_shared::phext_name::PhextName;

use crate::store::disk::{Disk, FileName, file_of};
use crate::store::links::Followed;
use crate::store::{Store, StoreError};

/// The least that a phext with a text costs: the block that its file takes on disk.
const BLOCK_BYTES: u64 = 4096;

/// The directory is scanned again after this time, if there are writes.
const LIFETIME: Duration = Duration::from_secs(10);

/// Before a write is refused it is scanned as well, but not more often than this.
const PAUSE: Duration = Duration::from_millis(100);

/// A pause is at least so many times as long as the last scan took: scans take up to a twentieth of the time.
const REST: u32 = 20;

/// A warning is logged from so many hundredths of the quota on.
const WARNING_PERCENT: u64 = 90;

/// The account, its limits, and how it is kept up to date.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// What all phexts together may cost; `None` is no limit.
    pub(super) quota_bytes: Option<u64>,
    /// How many phexts there may be; `None` is no limit.
    phexts_limit: Option<usize>,
    /// Names are kept as digests, with a secret that no client knows: 25 bytes per phext, however long its name is.
    digests: RandomState,
    account: Account,
    scan: ScanState,
    last_scan: Option<LastScan>,
    /// Phexts that the last scan found, and whose journals take space that is needed.
    pub(super) long_journals: Vec<PhextName>,
    is_warned: bool,
}

/// The lengths of a phext's files.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Files {
    /// Of the text once it is saved.
    pub(super) text_bytes: u64,
    /// Of the journal, and of the part of the file that the next save cuts off.
    pub(super) spare_bytes: u64,
}

/// Every phext of the directory: each name that has a text or a journal.
#[derive(Debug, Default)]
struct Account {
    phexts: HashMap<u64, Files>,
    text_bytes: u64,
    /// The same, with at least a block for each text.
    charged_bytes: u64,
    /// The spare bytes of all, in whole blocks.
    spare_bytes: u64,
    /// The longest text that there has been since the last scan.
    largest_bytes: u64,
}

#[derive(Debug, Default)]
enum ScanState {
    #[default]
    Idle,
    Wanted,
    /// The rows that have changed since it began, for which the account is right.
    Running {
        changed: HashSet<u64>,
    },
    /// The first one failed. The next caller gets the error.
    Failed(io::Error),
}

#[derive(Debug, Clone, Copy)]
struct LastScan {
    ended: Instant,
    took: Duration,
}

/// Finds the lengths of all files of the directory.
#[derive(Debug)]
pub struct Scan {
    disk: Arc<dyn Disk>,
    digests: RandomState,
    expected_phexts: usize,
    /// How many of the longest journals are wanted by name.
    wanted_journals: usize,
}

/// The result of a [`Scan`].
#[derive(Debug)]
pub struct Scanned {
    result: io::Result<Found>,
    took: Duration,
}

/// What is in a directory.
#[derive(Debug, Default)]
struct Found {
    account: Account,
    journals: BTreeSet<(u64, PhextName)>,
    /// Files whose size cannot be read.
    unreadable: u64,
}

impl Usage {
    pub(super) fn set_limits(&mut self, quota_bytes: Option<u64>, phexts: Option<usize>) {
        (self.quota_bytes, self.phexts_limit) = (quota_bytes, phexts);
    }

    /// Enters the lengths of a phext's files; `None` when it has no files.
    pub(super) fn set(&mut self, name: &PhextName, files: Option<Files>) {
        let digest = self.digests.hash_one(name);
        self.account.set(digest, files);
        if let ScanState::Running { changed } = &mut self.scan {
            changed.insert(digest);
        }
    }

    /// How many phexts there are; `None` before the first scan.
    pub(super) fn phexts(&self) -> Option<usize> {
        self.last_scan.map(|_| self.account.phexts.len())
    }

    pub(super) fn used_bytes(&self) -> u64 {
        // A quota of less than a block would not be enough for a single byte.
        match self.quota_bytes {
            Some(..BLOCK_BYTES) => self.account.text_bytes,
            _ => self.account.charged_bytes,
        }
    }

    fn cost(&self, text_bytes: u64) -> u64 {
        match self.quota_bytes {
            Some(..BLOCK_BYTES) => text_bytes,
            _ => charge(text_bytes),
        }
    }

    /// What journals take, and files beyond their texts.
    pub(super) fn spare_bytes(&self) -> u64 {
        self.account.spare_bytes
    }

    /// The length of the longest text, whose file takes as much space again while it is saved.
    pub(super) fn largest_bytes(&self) -> u64 {
        self.account.largest_bytes
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        const ROW_BYTES: u64 = 25;
        self.account.phexts.capacity() as u64 * ROW_BYTES
    }

    /// Refuses a text whose file would not fit into the quota. A write that makes its phext no longer always passes: it is how
    /// a tenant gets below the quota.
    pub(super) fn check_quota(&mut self, before: u64, after: u64, now: Instant) -> Result<(), StoreError> {
        let Some(quota) = self.quota_bytes.filter(|_| after > before) else { return Ok(()) };
        self.keep_current(now)?;
        let used = self.used_bytes();
        let used_after = used.saturating_sub(self.cost(before)).saturating_add(self.cost(after));
        if used_after <= quota {
            return Ok(());
        }
        self.scan_before_refusal(now)?;
        Err(StoreError::QuotaExceeded { used, quota })
    }

    /// Refuses the first text of a phext when there are as many phexts as there may be. A write that leaves only its key makes
    /// no phext. One that is in memory already is counted, if only for its key.
    pub(super) fn check_count(&mut self, is_counted: bool, now: Instant) -> Result<(), StoreError> {
        let Some(limit) = self.phexts_limit else { return Ok(()) };
        self.keep_current(now)?;
        let phexts = self.phexts().unwrap_or_default().saturating_sub(usize::from(is_counted));
        if phexts < limit {
            return Ok(());
        }
        self.scan_before_refusal(now)?;
        Err(StoreError::TooManyPhexts { phexts, limit, used: self.used_bytes(), quota: self.quota_bytes })
    }

    pub(super) fn disk_full(&self) -> StoreError {
        StoreError::DiskFull { used: self.used_bytes(), quota: self.quota_bytes }
    }

    /// Has the directory scanned when that was long ago. A caller waits for the first scan only.
    pub(super) fn keep_current(&mut self, now: Instant) -> Result<(), StoreError> {
        if let ScanState::Failed(_) = self.scan
            && let ScanState::Failed(error) = std::mem::take(&mut self.scan)
        {
            return Err(error.into());
        }
        if self.is_scan_due(LIFETIME, now) {
            self.want_scan();
        }
        if self.last_scan.is_some() { Ok(()) } else { Err(StoreError::NotYet) }
    }

    /// Has the directory scanned, unless it just was, because another program may have removed files.
    pub(super) fn scan_before_refusal(&mut self, now: Instant) -> Result<(), StoreError> {
        let is_under_way = matches!(self.scan, ScanState::Running { .. });
        if !is_under_way && !self.is_scan_due(PAUSE, now) {
            return Ok(());
        }
        self.want_scan();
        Err(StoreError::NotYet)
    }

    fn is_scan_due(&self, pause: Duration, now: Instant) -> bool {
        self.last_scan.is_none_or(|last| {
            now.saturating_duration_since(last.ended) >= pause.max(last.took.saturating_mul(REST))
        })
    }

    fn want_scan(&mut self) {
        if matches!(self.scan, ScanState::Idle) {
            self.scan = ScanState::Wanted;
        }
    }

    pub(super) fn is_scan_wanted(&self) -> bool {
        matches!(self.scan, ScanState::Wanted)
    }

    fn begin_scan(&mut self, disk: &Arc<dyn Disk>, wanted_journals: usize) -> Scan {
        self.scan = ScanState::Running { changed: HashSet::new() };
        let expected_phexts = self.account.phexts.len();
        Scan { disk: Arc::clone(disk), digests: self.digests.clone(), expected_phexts, wanted_journals }
    }

    /// Replaces the account with what a scan found, except for the phexts that have changed meanwhile and those in memory.
    fn finish_scan(&mut self, scanned: Scanned, open: impl Iterator<Item = (u64, Files)>, now: Instant) {
        let Scanned { result, took } = scanned;
        self.long_journals.clear();
        let ScanState::Running { changed } = std::mem::take(&mut self.scan) else { return };
        match result {
            Ok(Found { mut account, journals, .. }) => {
                for digest in changed {
                    account.set(digest, self.account.phexts.get(&digest).copied());
                }
                for (digest, files) in open {
                    account.set(digest, Some(files));
                }
                self.account = account;
                self.long_journals = journals.into_iter().map(|(_, name)| name).collect();
            }
            Err(error) if self.last_scan.is_none() => {
                self.scan = ScanState::Failed(error);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "failed to list the data directory; keeping the last account")
            }
        }
        self.last_scan = Some(LastScan { ended: now, took });
    }

    /// Warns the operator when the quota is nearly used up, and again only after it was not.
    pub(super) fn warn(&mut self) {
        let Some(quota) = self.quota_bytes else { return };
        let used = self.used_bytes();
        let is_near = u128::from(used) * 100 >= u128::from(quota) * u128::from(WARNING_PERCENT);
        if is_near && !self.is_warned {
            tracing::warn!(used, quota, "the quota is nearly used up: {WARNING_PERCENT} % or more");
        }
        self.is_warned = is_near;
    }
}

impl Account {
    fn set(&mut self, digest: u64, files: Option<Files>) {
        let before = match files {
            Some(files) => self.phexts.insert(digest, files),
            None => self.phexts.remove(&digest),
        };
        let (before, after) = (before.unwrap_or_default(), files.unwrap_or_default());
        let change =
            |sum: u64, part: fn(Files) -> u64| sum.saturating_sub(part(before)).saturating_add(part(after));
        self.text_bytes = change(self.text_bytes, |files| files.text_bytes);
        self.charged_bytes = change(self.charged_bytes, |files| charge(files.text_bytes));
        self.spare_bytes = change(self.spare_bytes, |files| files.spare_bytes.next_multiple_of(BLOCK_BYTES));
        self.largest_bytes = self.largest_bytes.max(after.text_bytes);
    }
}

impl Found {
    fn add(&mut self, digest: u64, change: impl FnOnce(&mut Files)) {
        let mut files = self.account.phexts.get(&digest).copied().unwrap_or_default();
        change(&mut files);
        self.account.set(digest, Some(files));
    }

    /// Keeps the longest journals.
    fn add_journal(&mut self, bytes: u64, name: PhextName, wanted_journals: usize) {
        self.journals.insert((bytes, name));
        if self.journals.len() > wanted_journals {
            self.journals.pop_first();
        }
    }
}

/// What a text of so many bytes costs where a quota is a block or more.
fn charge(text_bytes: u64) -> u64 {
    if text_bytes == 0 { 0 } else { text_bytes.max(BLOCK_BYTES) }
}

impl Scan {
    /// Does the scan, and blocks until the disk has answered.
    pub fn run(self) -> Scanned {
        let began = Instant::now();
        let mut found = Found::default();
        found.account.phexts.reserve(self.expected_phexts);
        let listed = self.disk.visit(&mut |name| {
            if let Some(file) = file_of(name) {
                self.measure(file, &mut found);
            }
        });
        if found.unreadable > 0 {
            let unreadable = found.unreadable;
            tracing::warn!(unreadable, "failed to read the size of some files; they count as empty");
        }
        Scanned { result: listed.map(|()| found), took: began.elapsed() }
    }

    fn measure(&self, file: FileName, found: &mut Found) {
        let (FileName::Phext(name) | FileName::Journal(name)) = &file else { return };
        let bytes = match self.disk.identity(&file) {
            // It was removed after it was listed.
            Ok(None) => return,
            Ok(Some(identity)) if identity.is_file => Ok(identity.bytes),
            Ok(Some(_)) => match self.disk.follow(name) {
                // A file in a folder counts, and the links to it do not.
                Ok(Followed::To(target)) if target.folder().is_some() && name.folder().is_none() => {
                    self.measure(FileName::Phext(target.clone()), found);
                    self.measure(FileName::Journal(target), found);
                    return;
                }
                followed => followed.map(|_| 0),
            },
            Err(error) => Err(error),
        };
        found.unreadable += u64::from(bytes.is_err());
        let bytes = bytes.unwrap_or(0);
        let digest = self.digests.hash_one(name);
        if let FileName::Journal(name) = file {
            found.add(digest, |files| files.spare_bytes = bytes);
            found.add_journal(bytes, name, self.wanted_journals);
        } else {
            found.add(digest, |files| files.text_bytes = bytes);
        }
    }
}

impl Store {
    /// A scan of the directory, when one is due. It must be run, and its result given to [`Store::finish_scan`].
    pub fn next_scan(&mut self) -> Option<Scan> {
        let is_due = self.is_scan_wanted();
        let wanted_journals = self.wanted_journals();
        is_due.then(|| self.usage.begin_scan(&self.disk, wanted_journals))
    }

    /// Whether [`Store::next_scan`] has one.
    pub fn is_scan_wanted(&self) -> bool {
        self.usage.is_scan_wanted() && !self.is_in_doubt()
    }

    /// Applies the result of a scan.
    pub fn finish_scan(&mut self, scanned: Scanned) {
        let digests = self.usage.digests.clone();
        let cache = &self.cache;
        let open = cache.names().filter_map(|name| Some((digests.hash_one(name), cache.files(name)?)));
        self.usage.finish_scan(scanned, open, Instant::now());
        // Phexts in memory give up their journals when a write needs the space.
        self.usage.long_journals.retain(|name| cache.get(name).is_none());
    }
}
