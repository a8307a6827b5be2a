//! The keys of writes that may come again, of phexts whose journals were retired: one file per tenant, `.keys`. It is a
//! journal that has nothing but keys.
//!
//! A key is in here before the journal that had it is removed. So after a crash it may be in both, which does no harm, and
//! never in neither.

use std::io;
use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::disk::{Disk, FileName};
use crate::store::job::{Outcome, append, begin};
use crate::store::journal::{self, Base, Journal, JournalDamage};
use crate::store::new_journal::NewJournal;
use crate::store::record::{Entry, LARGEST_FOUND_SEQUENCE, REPEAT_BYTES, Stamp, encode};
use crate::store::recovery::{Damage, Opened, RecoveryError, open_plain};
use crate::store::repeats::{MostKeys, Remembered, RepeatKey, Repeats};
use crate::store::reserve::Reserve;

/// Most keys that are remembered of retired journals, all phexts together: 2.3 MiB on disk, and 4 MiB in memory.
pub(super) const OF_ALL_PHEXTS: MostKeys = MostKeys { clients: 16_384, gateways: 16_384 };

/// The file begins anew when it is longer than its keys and this.
const SPENT_BYTES: u64 = 1024 * 1024;

/// What the file starts from: there is no text.
const BASE: Base = Base { sequence: 0, digest: None };

/// The keys, and the file that they are in.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// `None` until the file has been read.
    known: Option<Repeats>,
    /// `None` until this worker has written the file. What one before wrote may be in the kernel's memory alone, even after
    /// a sync; so the first write makes a new file.
    file: Option<Journal>,
    last_sequence: u64,
}

/// Keys that are to be written.
#[derive(Debug)]
pub(super) struct NewKeys {
    /// The file that is appended to; `None` is a new one, which begins with all keys that are known.
    file: Option<Journal>,
    known: Vec<(RepeatKey, Remembered)>,
    records: Vec<u8>,
}

impl Keys {
    /// Reads the file, unless that has been done.
    pub(super) fn load(&mut self, disk: &dyn Disk, now: Instant) -> Result<(), RecoveryError> {
        if self.known.is_none() {
            let mut known = Repeats::new(OF_ALL_PHEXTS);
            self.last_sequence = read(disk, &mut known, now)?;
            self.known = Some(known);
        }
        Ok(())
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
        let (mut records, durable) = (Vec::new(), self.last_sequence);
        for (name, keys) in phexts {
            for (key, Remembered { fingerprint, answer_bytes, time_us }) in keys.alive(now) {
                self.last_sequence += 1;
                let stamp = Stamp { sequence: self.last_sequence, durable, time_us };
                let key = key_of_all(name, &key);
                encode(&stamp, &Entry::Repeat { key, fingerprint, answer_bytes }, &mut records);
            }
        }
        let is_short = |file: &&Journal| file.bytes <= SPENT_BYTES + REPEAT_BYTES * self.count();
        let file = self.file.as_ref().filter(is_short).cloned();
        let known = self.known.iter().filter(|_| file.is_none()).flat_map(|known| known.alive(now));
        NewKeys { known: known.collect(), file, records }
    }

    fn count(&self) -> u64 {
        self.known.as_ref().map_or(0, |known| known.len() as u64)
    }

    /// Notes that keys have been written, and where.
    pub(super) fn note_written(&mut self, file: Journal) {
        self.file = Some(file);
    }

    /// Remembers the keys of a phext whose journal is gone.
    pub(super) fn take_over(&mut self, name: &PhextName, keys: Repeats, now: Instant) {
        if let Some(known) = &mut self.known {
            known.take_over(keys, |key| key_of_all(name, &key), now);
        }
    }

    /// What they take in memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.known.as_ref().map_or(0, Repeats::memory_bytes)
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
        let Self { file, known, records } = self;
        if records.is_empty() {
            return Ok(Ok(None));
        }
        // The journals that go give more room back.
        let frees_room = true;
        let outcome = match file {
            Some(file) => append(disk, reserve, file, records, frees_room)?,
            None => {
                let new = NewJournal { base: BASE, keys: known, tail: None };
                begin(disk, reserve, (&FileName::NewKeys, &FileName::Keys), &new, records, frees_room)?
            }
        };
        Ok(match outcome {
            Outcome::Appended(file) | Outcome::Began(file) => Ok(Some(file)),
            Outcome::Refused { error, .. } => Err(error),
            _ => Ok(None),
        })
    }
}

/// How many keys a `.keys` file has.
pub(super) fn count(disk: &dyn Disk) -> Result<u64, RecoveryError> {
    let mut known = Repeats::new(OF_ALL_PHEXTS);
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
    hash.update(name.as_str().as_bytes());
    RepeatKey { digest: hash.digest128(), ..*key }
}
