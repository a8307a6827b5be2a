//! The idempotency keys of phexts whose journals were removed: one file per tenant, `.keys`. It is a journal that has nothing
//! but keys.
//!
//! A key is in here before the journal that had it is removed. So after a crash it may be in both, which does no harm, and
//! never in neither.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::damage::Damage;
use crate::store::disk::{Disk, FileName, Identity};
use crate::store::idempotency::{KeyLimits, RememberedKeys, RememberedWrite, WriteKey};
use crate::store::job::{append, begin};
use crate::store::journal::{self, Base, Journal, JournalDamage};
use crate::store::new_journal::NewJournal;
use crate::store::record::{Entry, KEY_RECORD_BYTES, LARGEST_FOUND_SEQUENCE, Stamp, encode};
use crate::store::recovery::{Opened, RecoveryError, open_plain};
use crate::store::reserve::Reserve;

/// Most keys that are remembered of removed journals, all phexts together: 2.3 MiB on disk, and 4 MiB in memory.
pub(super) const RETIRED_KEY_LIMITS: KeyLimits = KeyLimits { clients: 16_384, gateways: 16_384 };

/// The file is compacted once it is longer than its keys and this.
const COMPACT_BYTES: u64 = 1024 * 1024;

/// The file belongs to no text.
const BASE: Base = Base { sequence: 0, digest: None };

/// The keys, and the file that they are in.
#[derive(Debug, Default)]
pub(super) struct RetiredKeys {
    /// `None` until the file has been read.
    known: Option<RememberedKeys>,
    /// The file is damaged for as long as it is this one.
    damaged: Option<(Option<Identity>, Damage)>,
    /// `None` until this worker has written the file. What an earlier one wrote may be in the page cache alone, even after a
    /// sync; so the first write makes a new file.
    file: Option<Journal>,
    last_sequence: u64,
    durable_sequence: u64,
    /// A job writes the file and removes journals.
    is_retiring: bool,
}

/// What was read from the file: the keys, and the last sequence.
#[derive(Debug)]
pub(super) struct FoundKeys {
    identity: Option<Identity>,
    content: Result<(RememberedKeys, u64), Damage>,
}

/// Keys that are to be written.
#[derive(Debug)]
pub(super) struct NewKeys {
    place: Place,
    records: Vec<u8>,
}

/// Where they go.
#[derive(Debug)]
enum Place {
    /// Nowhere: there are no keys, or the file has all of them.
    None,
    EndOf(Journal),
    /// A new file, which begins with these.
    NewFile(Vec<(WriteKey, RememberedWrite)>),
}

impl RetiredKeys {
    /// Whether the file has been read. It may be known to be damaged.
    pub(super) fn are_known(&self, disk: &dyn Disk) -> Result<bool, RecoveryError> {
        if self.known.is_some() {
            return Ok(true);
        }
        let Some((damaged, damage)) = &self.damaged else { return Ok(false) };
        if *damaged == disk.identity(&FileName::Keys)? { Err(damage.clone().into()) } else { Ok(false) }
    }

    /// Remembers what was read from the file.
    pub(super) fn install(&mut self, found: FoundKeys) -> Result<(), Damage> {
        match found.content {
            Ok((known, last_sequence)) => {
                (self.last_sequence, self.durable_sequence) = (last_sequence, last_sequence);
                self.known = Some(known);
                Ok(())
            }
            Err(damage) => {
                tracing::error!(%damage, "the idempotency keys are damaged; all writes are refused, because one that is sent again could be applied twice");
                self.damaged = Some((found.identity, damage.clone()));
                Err(damage)
            }
        }
    }

    /// What is known of a phext's key.
    pub(super) fn get(&self, name: &PhextName, key: &WriteKey, now: Instant) -> Option<RememberedWrite> {
        let known = self.known.as_ref().filter(|known| known.len() > 0)?;
        known.get(&shared_key(name, key), now)
    }

    /// Whether a job writes the file and removes journals. There is one at a time.
    pub(super) fn is_retiring(&self) -> bool {
        self.is_retiring
    }

    /// Begins a retirement. Gives what must be written before the journals that have these keys may be removed.
    pub(super) fn begin_to_retire<'k>(
        &mut self,
        phexts: impl Iterator<Item = (&'k PhextName, &'k RememberedKeys)>,
        now: Instant,
    ) -> NewKeys {
        self.is_retiring = true;
        let (mut records, mut is_any, durable) = (Vec::new(), false, self.durable_sequence);
        for (name, keys) in phexts {
            for (key, remembered) in keys.alive(now) {
                let key = shared_key(name, &key);
                is_any = true;
                // After a retirement that was refused the file has it already.
                if self.known.as_ref().and_then(|known| known.get(&key, now)) == Some(remembered) {
                    continue;
                }
                self.last_sequence += 1;
                let stamp = Stamp { sequence: self.last_sequence, durable, time_us: remembered.time_us };
                encode(&stamp, &Entry::from_key(key, remembered), &mut records);
            }
        }
        let place = match &self.file {
            _ if !is_any => Place::None,
            Some(_) if records.is_empty() => Place::None,
            Some(file) if self.has_room(file, &records) => Place::EndOf(file.clone()),
            _ => Place::NewFile(self.known.iter().flat_map(|known| known.alive(now)).collect()),
        };
        NewKeys { place, records }
    }

    fn has_room(&self, file: &Journal, records: &[u8]) -> bool {
        let known = self.known.as_ref().map_or(0, RememberedKeys::len) as u64;
        file.bytes + records.len() as u64 <= COMPACT_BYTES + KEY_RECORD_BYTES * known
    }

    /// Ends a retirement. The file is given if it is new or longer.
    pub(super) fn end_retiring(&mut self, written: Option<Journal>) {
        self.is_retiring = false;
        if let Some(file) = written {
            self.file = Some(file);
            self.durable_sequence = self.last_sequence;
        }
    }

    /// Remembers the keys of a phext that have been written: all but those of records that its journal does not have yet.
    pub(super) fn take_over(
        &mut self,
        name: &PhextName,
        keys: &RememberedKeys,
        unwritten: &[WriteKey],
        now: Instant,
    ) {
        if let Some(known) = &mut self.known {
            known.take_over(keys, unwritten, |key| shared_key(name, key), now);
        }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.known.as_ref().map_or(0, RememberedKeys::memory_bytes)
    }
}

impl FoundKeys {
    pub(super) fn read(disk: &dyn Disk, now: Instant) -> io::Result<Self> {
        let identity = disk.identity(&FileName::Keys)?;
        let mut known = RememberedKeys::new(RETIRED_KEY_LIMITS);
        let content = match read(disk, &mut known, now) {
            Ok(last_sequence) => Ok((known, last_sequence)),
            Err(RecoveryError::Damaged(damage)) => Err(damage),
            Err(RecoveryError::Io(error)) => return Err(error),
        };
        Ok(Self { identity, content })
    }
}

impl NewKeys {
    /// Writes and syncs them. The file is given if it is new or longer; the inner error says that it is as it was.
    pub(super) fn write(
        self,
        disk: &dyn Disk,
        reserve: &Reserve,
    ) -> io::Result<Result<Option<Journal>, io::Error>> {
        // The removed journals free more.
        let frees_space = true;
        let written = match self.place {
            Place::None => return Ok(Ok(None)),
            Place::EndOf(file) => append(disk, reserve, file, self.records, frees_space)?,
            Place::NewFile(keys) => {
                let new = NewJournal { base: BASE, keys, tail: None };
                begin(disk, reserve, (&FileName::NewKeys, &FileName::Keys), &new, self.records, frees_space)?
            }
        };
        Ok(written.map(Some).map_err(|refused| refused.error))
    }
}

pub(super) fn count(disk: &dyn Disk) -> Result<u64, RecoveryError> {
    let mut known = RememberedKeys::new(RETIRED_KEY_LIMITS);
    read(disk, &mut known, Instant::now())?;
    Ok(known.len() as u64)
}

/// Reads the file, and gives the last sequence in it. Nothing ever depended on a torn end: the journals that had those keys
/// were still there.
fn read(disk: &dyn Disk, known: &mut RememberedKeys, now: Instant) -> Result<u64, RecoveryError> {
    let damaged = |damage| RecoveryError::Damaged(Damage::Keys(damage));
    let file = match open_plain(disk, &FileName::Keys)? {
        Opened::Missing => return Ok(0),
        Opened::NotAFile => return Err(damaged(JournalDamage::NotAFile)),
        Opened::File(file) => file,
    };
    let header = journal::read_header(&*file)?.map_err(damaged)?;
    let mut last_sequence = 0;
    let scanned = journal::scan(&*file, &header, |record| {
        last_sequence = record.stamp.sequence;
        if let Entry::Key { .. } = record.entry
            && let Some((key, write)) = record.entry.key(record.stamp.time_us)
        {
            known.insert(key, write, now);
        }
    })?;
    scanned.map_err(damaged)?;
    if last_sequence > LARGEST_FOUND_SEQUENCE {
        return Err(damaged(JournalDamage::Sequence));
    }
    Ok(last_sequence)
}

/// The key as it is remembered beside those of other phexts.
fn shared_key(name: &PhextName, key: &WriteKey) -> WriteKey {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(&key.digest.to_le_bytes());
    if let Some(folder) = name.folder() {
        // No name has a slash. The folder may have been replaced since: clients know its phext by the same name.
        hash.update(folder.path.as_os_str().as_bytes());
        hash.update(b"/");
    }
    hash.update(name.as_str().as_bytes());
    WriteKey { digest: hash.digest128(), ..*key }
}

#[cfg(test)]
mod tests {
    use sq_shared::phext_name::Folder;

    use super::*;
    use crate::store::idempotency::KeyOrigin;

    #[test]
    fn phexts_of_one_name_in_two_folders_have_separate_keys() {
        let name = PhextName::parse("notes").unwrap();
        let in_folder = |path: &str| name.in_folder(Folder { path: path.into(), inode: 1 }).unwrap();
        let key = WriteKey::new(KeyOrigin::Client, "key");
        let digests =
            [name.clone(), in_folder("a"), in_folder("b")].map(|name| shared_key(&name, &key).digest);
        assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
    }
}
