//! The keys of writes that may come again, of phexts whose journals were retired: one file per tenant, `.keys`. It is a
//! journal that has nothing but keys.
//!
//! A key is in here before the journal that had it is removed. So after a crash it may be in both, which does no harm, and
//! never in neither.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::damage::Damage;
use crate::store::disk::{Disk, FileName, Identity};
use crate::store::job::{append, begin};
use crate::store::journal::{self, Base, Journal, JournalDamage};
use crate::store::new_journal::NewJournal;
use crate::store::record::{Entry, LARGEST_FOUND_SEQUENCE, REPEAT_BYTES, Stamp, encode};
use crate::store::recovery::{Opened, RecoveryError, open_plain};
use crate::store::repeats::{MostKeys, Remembered, RepeatKey, Repeats};
use crate::store::reserve::Reserve;

/// Most keys that are remembered of retired journals, all phexts together: 2.3 MiB on disk, and 4 MiB in memory.
pub(super) const RETIRED_KEYS: MostKeys = MostKeys { clients: 16_384, gateways: 16_384 };

/// A new file takes the place of one that is longer than its keys and this.
const SPENT_BYTES: u64 = 1024 * 1024;

/// What the file starts from: there is no text.
const BASE: Base = Base { sequence: 0, digest: None };

/// The keys, and the file that they are in.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// `None` until the file has been read.
    known: Option<Repeats>,
    /// The file cannot be understood for as long as it is this one.
    damaged: Option<(Option<Identity>, Damage)>,
    /// `None` until this worker has written the file. What one before wrote may be in the kernel's memory alone, even after
    /// a sync; so the first write makes a new file.
    file: Option<Journal>,
    last_sequence: u64,
    durable_sequence: u64,
}

/// What the file has: the keys, and the last sequence.
#[derive(Debug)]
pub(super) struct FoundKeys {
    identity: Option<Identity>,
    content: Result<(Repeats, u64), Damage>,
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
    /// Nothing to write: there are no keys, or the file has all of them.
    None,
    EndOf(Journal),
    /// A new file, which has these first.
    NewFile(Vec<(RepeatKey, Remembered)>),
}

impl Keys {
    /// Whether the file has been read. It may be known to be damaged.
    pub(super) fn are_known(&self, disk: &dyn Disk) -> Result<bool, RecoveryError> {
        if self.known.is_some() {
            return Ok(true);
        }
        let Some((damaged, damage)) = &self.damaged else { return Ok(false) };
        if *damaged == disk.identity(&FileName::Keys)? { Err(damage.clone().into()) } else { Ok(false) }
    }

    /// Takes in what the file has.
    pub(super) fn take_in(&mut self, found: FoundKeys) -> Result<(), Damage> {
        match found.content {
            Ok((known, last_sequence)) => {
                (self.last_sequence, self.durable_sequence) = (last_sequence, last_sequence);
                self.known = Some(known);
                Ok(())
            }
            Err(damage) => {
                tracing::error!(%damage, "no phext is written, because a write that comes again could be made twice");
                self.damaged = Some((found.identity, damage.clone()));
                Err(damage)
            }
        }
    }

    /// What is known of a phext's key.
    pub(super) fn get(&self, name: &PhextName, key: &RepeatKey, now: Instant) -> Option<Remembered> {
        let known = self.known.as_ref().filter(|known| known.len() > 0)?;
        known.get(&key_of_all(name, key), now)
    }

    /// What must be written before the journals that have these keys may go.
    pub(super) fn gather<'k>(
        &mut self,
        phexts: impl Iterator<Item = (&'k PhextName, &'k Repeats)>,
        now: Instant,
    ) -> NewKeys {
        let (mut records, mut is_any, durable) = (Vec::new(), false, self.durable_sequence);
        for (name, keys) in phexts {
            for (key, remembered) in keys.alive(now) {
                let key = key_of_all(name, &key);
                is_any = true;
                // After a retirement that was refused the file has it already.
                if self.known.as_ref().and_then(|known| known.get(&key, now)) == Some(remembered) {
                    continue;
                }
                self.last_sequence += 1;
                let Remembered { fingerprint, answer_bytes, time_us } = remembered;
                let stamp = Stamp { sequence: self.last_sequence, durable, time_us };
                encode(&stamp, &Entry::Repeat { key, fingerprint, answer_bytes }, &mut records);
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
        let known = self.known.as_ref().map_or(0, Repeats::len) as u64;
        file.bytes + records.len() as u64 <= SPENT_BYTES + REPEAT_BYTES * known
    }

    /// Notes that keys have been written, and where.
    pub(super) fn note_written(&mut self, file: Journal) {
        self.file = Some(file);
        self.durable_sequence = self.last_sequence;
    }

    /// Remembers the keys of a phext that have been written, all but those of records on their way.
    pub(super) fn take_over(
        &mut self,
        name: &PhextName,
        keys: &Repeats,
        on_their_way: &[RepeatKey],
        now: Instant,
    ) {
        if let Some(known) = &mut self.known {
            known.take_over(keys, on_their_way, |key| key_of_all(name, key), now);
        }
    }

    /// What they take in memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.known.as_ref().map_or(0, Repeats::memory_bytes)
    }
}

impl FoundKeys {
    pub(super) fn read(disk: &dyn Disk, now: Instant) -> io::Result<Self> {
        let identity = disk.identity(&FileName::Keys)?;
        let mut known = Repeats::new(RETIRED_KEYS);
        let content = match read(disk, &mut known, now) {
            Ok(last_sequence) => Ok((known, last_sequence)),
            Err(RecoveryError::Damaged(damage)) => Err(damage),
            Err(RecoveryError::Io(error)) => return Err(error),
        };
        Ok(Self { identity, content })
    }
}

impl NewKeys {
    /// Writes them, and makes them durable. The file is given if there is another one, or a longer one; the inner error says
    /// that it is as it was.
    pub(super) fn write(
        self,
        disk: &dyn Disk,
        reserve: &Reserve,
    ) -> io::Result<Result<Option<Journal>, io::Error>> {
        // The journals that go give more room back.
        let frees_room = true;
        let written = match self.place {
            Place::None => return Ok(Ok(None)),
            Place::EndOf(file) => append(disk, reserve, file, self.records, frees_room)?,
            Place::NewFile(keys) => {
                let new = NewJournal { base: BASE, keys, tail: None };
                begin(disk, reserve, (&FileName::NewKeys, &FileName::Keys), &new, self.records, frees_room)?
            }
        };
        Ok(written.map(Some).map_err(|refused| refused.error))
    }
}

/// How many keys a `.keys` file has.
pub(super) fn count(disk: &dyn Disk) -> Result<u64, RecoveryError> {
    let mut known = Repeats::new(RETIRED_KEYS);
    read(disk, &mut known, Instant::now())?;
    Ok(known.len() as u64)
}

/// Reads the file, and gives the last sequence in it. An end that is torn was never relied on: the journals that had those
/// keys were still there.
fn read(disk: &dyn Disk, known: &mut Repeats, now: Instant) -> Result<u64, RecoveryError> {
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
        if let Entry::Repeat { key, fingerprint, answer_bytes } = record.entry {
            let time_us = record.stamp.time_us;
            known.insert(key, Remembered { fingerprint, answer_bytes, time_us }, now);
        }
    })?;
    scanned.map_err(damaged)?;
    if last_sequence > LARGEST_FOUND_SEQUENCE {
        return Err(damaged(JournalDamage::Sequence));
    }
    Ok(last_sequence)
}

/// The key under which a phext's key is remembered beside those of other phexts.
fn key_of_all(name: &PhextName, key: &RepeatKey) -> RepeatKey {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(&key.digest.to_le_bytes());
    if let Some(folder) = name.folder() {
        // No name has a slash. The folder may be another one by now: its phext has the same name for clients.
        hash.update(folder.path.as_os_str().as_bytes());
        hash.update(b"/");
    }
    hash.update(name.as_str().as_bytes());
    RepeatKey { digest: hash.digest128(), ..*key }
}

#[cfg(test)]
mod tests {
    use sq_shared::phext_name::Folder;

    use super::*;
    use crate::store::repeats::KeyOrigin;

    #[test]
    fn phexts_of_one_name_in_two_folders_have_keys_of_their_own() {
        let name = PhextName::parse("notes").unwrap();
        let in_folder = |path: &str| name.in_folder(Folder { path: path.into(), inode: 1 }).unwrap();
        let key = RepeatKey::new(KeyOrigin::Client, "key");
        let digests =
            [name.clone(), in_folder("a"), in_folder("b")].map(|name| key_of_all(&name, &key).digest);
        assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
    }
}
