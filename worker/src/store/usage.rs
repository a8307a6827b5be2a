//! How much of its quota a tenant uses: an account of all its phexts, with a row per name.
//!
//! Each change that the store makes or sees is entered at once. What other programs do to phexts that are not in memory
//! shows when the directory is compared with the account, which is the work of a [`Scan`], on a thread of its own. The
//! first write waits for the first comparison; later ones never wait, except before they are refused.

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

/// The account is compared with the directory again after this time, if there are writes.
const LIFETIME: Duration = Duration::from_secs(10);

/// Before a write is refused it is compared as well, but not more often than this.
const PAUSE: Duration = Duration::from_millis(100);

/// And in any case not before so many times what the last comparison took: the disk is busy with it for a twentieth of
/// the time at most.
const REST: u32 = 20;

/// A warning is logged above so many hundredths of the quota.
const WARNING_PERCENT: u64 = 90;

/// The account, and how it is kept true.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Names are kept as digests, with a secret that no client knows: 25 bytes per phext, however long its name is.
    digests: RandomState,
    account: Account,
    scan: ScanState,
    last_scan: Option<LastScan>,
    is_warned: bool,
}

/// What the files of a phext have.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Files {
    /// Of the text, as it is or will be once it is saved.
    pub(super) text_bytes: u64,
    /// Of the journal, and of the file beyond the text, which goes with the next save.
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
    /// The most that one text had, as far as is known.
    largest_bytes: u64,
}

#[derive(Debug, Default)]
enum ScanState {
    #[default]
    Idle,
    Wanted,
    /// The rows that have changed since it began: of these the account knows better.
    Running {
        changed: HashSet<u64>,
    },
    /// The first one failed. The next caller is told.
    Failed(io::Error),
}

#[derive(Debug, Clone, Copy)]
struct LastScan {
    ended: Instant,
    took: Duration,
}

/// Looks at every file of the directory: a job of the store's that concerns no single phext.
#[derive(Debug)]
pub struct Scan {
    disk: Arc<dyn Disk>,
    digests: RandomState,
    expected_phexts: usize,
    /// So many of the longest journals are wanted by name.
    wanted_journals: usize,
}

/// What came of a [`Scan`].
#[derive(Debug)]
pub struct Scanned {
    result: io::Result<Found>,
    took: Duration,
}

/// What is in a directory.
#[derive(Debug, Default)]
struct Found {
    account: Account,
    /// The longest journals, with the length of each.
    journals: BTreeSet<(u64, PhextName)>,
    /// Files whose size cannot be read.
    unreadable: u64,
}

impl Usage {
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

    /// What all of them cost.
    pub(super) fn used_bytes(&self, quota: Option<u64>) -> u64 {
        // A quota of less than a block would not be enough for a single byte.
        match quota {
            Some(..BLOCK_BYTES) => self.account.text_bytes,
            _ => self.account.charged_bytes,
        }
    }

    /// What journals take, and files beyond their texts.
    pub(super) fn spare_bytes(&self) -> u64 {
        self.account.spare_bytes
    }

    /// The size of the largest phext, which takes as much room again while it is saved.
    pub(super) fn largest_bytes(&self) -> u64 {
        self.account.largest_bytes
    }

    /// What the account takes in memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        const ROW_BYTES: u64 = 25;
        self.account.phexts.capacity() as u64 * ROW_BYTES
    }

    /// Whether the directory is to be compared with the account.
    pub(super) fn is_scan_wanted(&self) -> bool {
        matches!(self.scan, ScanState::Wanted)
    }

    /// Has the directory compared when that was long ago. A caller waits for the first time only.
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

    /// Before a refusal: has the directory compared, unless it just was, for another program may have removed files.
    pub(super) fn check_again(&mut self, now: Instant) -> Result<(), StoreError> {
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

    fn begin_scan(&mut self, disk: &Arc<dyn Disk>, wanted_journals: usize) -> Scan {
        self.scan = ScanState::Running { changed: HashSet::new() };
        let expected_phexts = self.account.phexts.len();
        Scan { disk: Arc::clone(disk), digests: self.digests.clone(), expected_phexts, wanted_journals }
    }

    /// Takes over what a scan found, except for the phexts that have changed meanwhile and those in memory. Gives the
    /// longest journals, if they were wanted.
    fn finish_scan(
        &mut self,
        scanned: Scanned,
        open: impl Iterator<Item = (u64, Files)>,
        now: Instant,
    ) -> BTreeSet<(u64, PhextName)> {
        let Scanned { result, took } = scanned;
        let mut longest = BTreeSet::new();
        let ScanState::Running { changed } = std::mem::take(&mut self.scan) else { return longest };
        match result {
            Ok(Found { mut account, journals, .. }) => {
                for digest in changed {
                    account.set(digest, self.account.phexts.get(&digest).copied());
                }
                for (digest, files) in open {
                    account.set(digest, Some(files));
                }
                self.account = account;
                longest = journals;
            }
            Err(error) if self.last_scan.is_none() => {
                self.scan = ScanState::Failed(error);
                return longest;
            }
            Err(error) => tracing::warn!(%error, "failed to list the data directory; the last account stays"),
        }
        self.last_scan = Some(LastScan { ended: now, took });
        longest
    }

    /// Tells the operator once when the quota is nearly used up, and again when that happens another time.
    pub(super) fn warn(&mut self, quota: u64) {
        let used = self.used_bytes(Some(quota));
        let is_near = u128::from(used) * 100 >= u128::from(quota) * u128::from(WARNING_PERCENT);
        if is_near && !self.is_warned {
            tracing::warn!(used, quota, "the tenant's quota is nearly used up: {WARNING_PERCENT} % or more");
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

/// What a text of so many bytes costs.
pub(super) fn cost(text_bytes: u64, quota: u64) -> u64 {
    if quota < BLOCK_BYTES { text_bytes } else { charge(text_bytes) }
}

impl Scan {
    /// Looks at every file; it may take long.
    pub fn run(self) -> Scanned {
        let began = Instant::now();
        let mut found = Found::default();
        found.account.phexts.reserve(self.expected_phexts);
        let listed = self.disk.visit(&mut |name| {
            if let Some(file) = file_of(name) {
                self.look_at(file, &mut found);
            }
        });
        if found.unreadable > 0 {
            let unreadable = found.unreadable;
            tracing::warn!(unreadable, "the size of some files cannot be read: they count as empty");
        }
        Scanned { result: listed.map(|()| found), took: began.elapsed() }
    }

    fn look_at(&self, file: FileName, found: &mut Found) {
        let (FileName::Phext(name) | FileName::Journal(name)) = &file else { return };
        let bytes = match self.disk.identity(&file) {
            // Another program removed it since it was listed, or a retirement.
            Ok(None) => return,
            Ok(Some(identity)) if identity.is_file => identity.bytes,
            Ok(Some(_)) => match self.disk.follow(name) {
                // It counts as the files in the directory do, and its links do not count.
                Ok(Followed::To(target)) if target.folder().is_some() && name.folder().is_none() => {
                    self.look_at(FileName::Phext(target.clone()), found);
                    self.look_at(FileName::Journal(target), found);
                    return;
                }
                Ok(_) => 0,
                Err(_) => {
                    found.unreadable += 1;
                    0
                }
            },
            Err(_) => {
                found.unreadable += 1;
                0
            }
        };
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
        self.usage.is_scan_wanted() && !self.is_in_doubt
    }

    /// Takes in what came of a scan.
    pub fn finish_scan(&mut self, scanned: Scanned) {
        let digests = self.usage.digests.clone();
        let open =
            self.cache.names().filter_map(|name| Some((digests.hash_one(name), self.cache.files(name)?)));
        let longest = self.usage.finish_scan(scanned, open, Instant::now());
        self.note_long_journals(longest);
    }
}
