//! What the store has done away from its own thread: everything that waits for the disk.
//!
//! A job owns all that it needs, so that requests go on being served while it runs. What it brings back goes
//! to [`crate::store::Store::finish`].

use std::io::{self, Write};
use std::sync::Arc;

use sq_shared::phext_name::PhextName;

use crate::store::disk::{Disk, DiskFile, FileName, Identity, is_full};
use crate::store::journal::read_full;
use crate::store::phext::Phext;
use crate::store::record::FileDigest;

/// A save is synced in pieces of so many bytes, so that a large one never fills the disk's queue at once: the
/// journals of other phexts are synced in between.
const SYNC_EVERY_BYTES: u64 = 4 * 1024 * 1024;

/// How much of a journal is written over itself at once.
const REFRESH_BYTES: usize = 256 * 1024;

/// Work on one phext's files.
#[derive(Debug)]
pub struct Job {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) name: PhextName,
    pub(super) work: Work,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Work {
    /// Make the journal's records up to a sequence durable.
    Sync { journal: Arc<dyn DiskFile>, upto: u64 },
    /// Write the records of an old journal over themselves, so that a sync has something to do, and sync it.
    Refresh { journal: Arc<dyn DiskFile>, bytes: u64, upto: u64 },
    /// Make a new journal durable, and give it its name.
    Install { journal: Arc<dyn DiskFile>, upto: u64 },
    /// Write a new file beside the phext's.
    Write { snapshot: Phext },
    /// Give the new file the phext's name, if that still stands for the expected file.
    Publish { written: Written, expected: Option<Identity> },
}

/// What came of a job.
#[derive(Debug)]
pub struct Done {
    pub(super) name: PhextName,
    /// An error is one of the disk: what it holds is known only after a new start.
    pub(super) result: io::Result<Outcome>,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// The journal is durable up to this sequence.
    Synced(u64),
    /// The new journal is, and has its name.
    Installed(u64),
    Written(Written),
    /// The phext's file, as it is now.
    Published(Identity),
    /// Another program has changed the phext's file meanwhile: it stays.
    Foreign,
    /// The disk is too full for a save.
    NoRoom,
}

/// A new file that is durable but for its name.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) identity: Identity,
    pub(super) digest: FileDigest,
}

impl Job {
    /// Does the work; it may take long.
    pub fn run(self) -> Done {
        let Self { disk, name, work } = self;
        let result = match work {
            Work::Sync { journal, upto } => journal.sync_data().map(|()| Outcome::Synced(upto)),
            Work::Refresh { journal, bytes, upto } => {
                refresh(&*journal, bytes).map(|()| Outcome::Synced(upto))
            }
            Work::Install { journal, upto } => {
                install(&*disk, &name, &*journal).map(|()| Outcome::Installed(upto))
            }
            Work::Write { snapshot } => or_no_room(write(&*disk, &name, &snapshot).map(Outcome::Written)),
            Work::Publish { written, expected } => publish(&*disk, &name, &written, expected),
        };
        Done { name, result }
    }
}

/// A save that finds no room has changed nothing, and may be tried again.
fn or_no_room(result: io::Result<Outcome>) -> io::Result<Outcome> {
    match result {
        Err(error) if is_full(&error) => Ok(Outcome::NoRoom),
        result => result,
    }
}

fn refresh(journal: &dyn DiskFile, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; REFRESH_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let wanted = usize::try_from(bytes - offset).unwrap_or(REFRESH_BYTES).min(REFRESH_BYTES);
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        if read_full(journal, piece, offset)? != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        journal.write_all_at(piece, offset)?;
        offset += wanted as u64;
    }
    journal.sync_data()
}

fn install(disk: &dyn Disk, name: &PhextName, journal: &dyn DiskFile) -> io::Result<()> {
    journal.sync_all()?;
    disk.rename(&FileName::NewJournal(name.clone()), &FileName::Journal(name.clone()))?;
    disk.sync_directory()
}

fn write(disk: &dyn Disk, name: &PhextName, snapshot: &Phext) -> io::Result<Written> {
    let mut sink = Sink {
        file: disk.create(&FileName::NewPhext(name.clone()))?,
        bytes: 0,
        synced_bytes: 0,
        hash: xxhash_rust::xxh3::Xxh3::new(),
    };
    snapshot.write_to(&mut sink)?;
    let Sink { file, bytes, hash, .. } = sink;
    file.sync_all()?;
    let digest = FileDigest { bytes, xxh3: hash.digest128() };
    Ok(Written { identity: file.identity()?, file, digest })
}

fn publish(
    disk: &dyn Disk,
    name: &PhextName,
    written: &Written,
    expected: Option<Identity>,
) -> io::Result<Outcome> {
    let target = FileName::Phext(name.clone());
    if disk.identity(&target)? != expected {
        return Ok(Outcome::Foreign);
    }
    match disk.rename(&FileName::NewPhext(name.clone()), &target) {
        Err(error) if is_full(&error) => return Ok(Outcome::NoRoom),
        renamed => renamed?,
    }
    disk.sync_directory()?;
    // The rename has changed the time of change; were anything else new, it would not be our file's.
    let renamed = written.file.identity()?;
    let (changed_s, changed_ns) = (renamed.changed_s, renamed.changed_ns);
    Ok(Outcome::Published(Identity { changed_s, changed_ns, ..written.identity }))
}

/// Writes a file front to back, and knows its digest at the end.
struct Sink {
    file: Box<dyn DiskFile>,
    bytes: u64,
    synced_bytes: u64,
    hash: xxhash_rust::xxh3::Xxh3,
}

impl Write for Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(piece, self.bytes)?;
        self.hash.update(piece);
        self.bytes += piece.len() as u64;
        if self.bytes - self.synced_bytes >= SYNC_EVERY_BYTES {
            self.file.sync_data()?;
            self.synced_bytes = self.bytes;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
