//! What the store has done away from its own thread: everything that waits for the disk.
//!
//! A job owns all that it needs, so that requests go on being served while it runs. What it brings back goes
//! to [`crate::store::Store::finish`].

use std::io::{self, Write};
use std::sync::Arc;

use sq_shared::phext_name::PhextName;

use crate::store::disk::{Disk, DiskFile, FileName, Identity, is_full, is_harmless, is_unwritable};
use crate::store::journal::{AppendError, Journal, read_full};
use crate::store::new_journal::NewJournal;
use crate::store::phext::Phext;
use crate::store::reading::{ReadDone, ReadJob};
use crate::store::record::FileDigest;
use crate::store::reserve::Reserve;
use crate::store::retirement::{RetireJob, Retired};

/// A save is synced in pieces of so many bytes, so that a large one never fills the disk's queue at once: the
/// journals of other phexts are synced in between.
const SYNC_EVERY_BYTES: u64 = 4 * 1024 * 1024;

/// How much of a journal is written over itself at once.
const REFRESH_BYTES: usize = 256 * 1024;

/// Work on files.
#[derive(Debug)]
pub struct Job {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) reserve: Arc<Reserve>,
    pub(super) task: Task,
}

/// Whose files.
#[derive(Debug)]
pub(super) enum Task {
    /// One phext's.
    Phext(PhextName, Work),
    /// Those of phexts that need a journal no more.
    Retire(RetireJob),
    /// One's that comes into memory, or the keys.
    Read(ReadJob),
}

/// What is to be done with a phext's files.
#[derive(Debug)]
pub(super) enum Work {
    /// Append records to the journal, and make all of it durable.
    Append { journal: Journal, records: Vec<u8>, frees_room: bool },
    /// Write the records of an old journal over themselves, so that a sync has something to do, and sync it.
    Refresh { journal: Arc<dyn DiskFile>, bytes: u64 },
    /// Write a new journal that ends with these records, make it durable, and give it its name.
    Begin { new: Box<NewJournal>, records: Vec<u8>, frees_room: bool },
    /// Write a new file beside the phext's.
    Write { snapshot: Phext },
    /// Give the new file the phext's name, if that still stands for the expected file, and note it in the journal.
    Publish { written: Written, expected: Option<Identity>, note: Option<Note> },
    /// Remove the new file: the journal does not have its edits.
    Discard,
}

/// What came of a job. An error is one of the disk: what it holds is known only after a new start.
#[derive(Debug)]
pub struct Done(pub(super) io::Result<Finished>);

#[derive(Debug)]
pub(super) enum Finished {
    Phext(PhextName, Outcome),
    Retired(Retired),
    Read(ReadDone),
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// The journal has the records, and is durable.
    Appended(Journal),
    /// The old journal is durable.
    Refreshed,
    /// The old journal can only be read, and the file system has failed: what of it is on disk cannot be told.
    Unproven,
    /// The new journal is durable and has its name.
    Began(Journal),
    /// The records are in no journal, and the phext has the journal that it had.
    Refused(RefusedRecords),
    Written(Written),
    /// The phext's file, as it is now, and the journal, if the note is in it.
    Published(Identity, Option<Journal>),
    /// Another program has changed the phext's file meanwhile: it stays, and the new one is gone.
    Foreign,
    /// The disk has no room for a save, or does not let the phext's file be changed. The new file is gone.
    NotSaved(io::Error),
    /// The new file is gone.
    Discarded,
}

/// Records that a disk did not take, and why.
#[derive(Debug)]
pub(super) struct RefusedRecords {
    pub(super) records: Vec<u8>,
    pub(super) error: io::Error,
}

/// A record for a journal that is lent to the job.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) journal: Journal,
    pub(super) record: Vec<u8>,
}

impl Note {
    /// Writes it. No request waits for it, for the file's contents say the same after a new start.
    fn write(mut self) -> io::Result<Option<Journal>> {
        match self.journal.append(&mut self.record) {
            Ok(()) => Ok(Some(self.journal)),
            Err(AppendError::Refused(_)) => Ok(None),
            Err(AppendError::Torn(error)) => Err(error),
        }
    }
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
        let Self { disk, reserve, task } = self;
        Done(match task {
            Task::Phext(name, work) => work
                .run(&*disk, &reserve, &name)
                .and_then(|outcome| check_kept(&*disk, &name, outcome))
                .map(|outcome| Finished::Phext(name, outcome)),
            Task::Retire(job) => job.run(&*disk, &reserve).map(Finished::Retired),
            Task::Read(job) => Ok(Finished::Read(job.run(&*disk))),
        })
    }
}

/// What was written into a directory that has been removed is read by no worker again. The same holds for a folder, which
/// has the text of each phext that is written there.
fn check_kept(disk: &dyn Disk, name: &PhextName, outcome: Outcome) -> io::Result<Outcome> {
    use Outcome::{Appended, Began, Published, Refreshed};
    let is_news = matches!(outcome, Appended(_) | Began(_) | Published(..) | Refreshed);
    let is_folder_gone =
        is_news && name.folder().is_some() && disk.identity(&FileName::Phext(name.clone()))?.is_none();
    if is_folder_gone || disk.is_removed()? {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the directory has been removed"));
    }
    Ok(outcome)
}

impl Work {
    fn run(self, disk: &dyn Disk, reserve: &Reserve, name: &PhextName) -> io::Result<Outcome> {
        match self {
            Self::Append { journal, records, frees_room } => {
                let appended = append(disk, reserve, journal, records, frees_room)?;
                Ok(appended.map_or_else(Outcome::Refused, Outcome::Appended))
            }
            Self::Refresh { journal, bytes } => match rewrite(&*journal, bytes) {
                // Where nothing more is written a sync has nothing to do, unless the file system stopped at an error.
                Err(error) if is_unwritable(&error) => Ok(match journal.sync_data() {
                    Ok(()) => Outcome::Refreshed,
                    Err(error) => {
                        tracing::error!(
                            phext = %name, %error,
                            "the file system has failed: the last writes may be in memory alone, and are not confirmed"
                        );
                        Outcome::Unproven
                    }
                }),
                rewritten => rewritten.and_then(|()| journal.sync_data()).map(|()| Outcome::Refreshed),
            },
            Self::Begin { new, records, frees_room } => {
                let (temporary, target) =
                    (FileName::NewJournal(name.clone()), FileName::Journal(name.clone()));
                let begun = begin(disk, reserve, (&temporary, &target), &new, records, frees_room)?;
                Ok(begun.map_or_else(Outcome::Refused, Outcome::Began))
            }
            Self::Write { snapshot } => save(disk, reserve, name, &snapshot),
            Self::Publish { written, expected, note } => {
                publish(disk, name, &written, expected, note).inspect(|_| reserve.hold(disk))
            }
            Self::Discard => remove_new(disk, name).map(|()| Outcome::Discarded),
        }
    }
}

/// The inner error says that the journal is as it was.
pub(super) fn append(
    disk: &dyn Disk,
    reserve: &Reserve,
    mut journal: Journal,
    mut records: Vec<u8>,
    frees_room: bool,
) -> io::Result<Result<Journal, RefusedRecords>> {
    if !records.is_empty() {
        reserve.hold(disk);
    }
    let is_without_room =
        |error: &AppendError| frees_room && matches!(error, AppendError::Refused(error) if is_full(error));
    match reserve.with_room(disk, is_without_room, || journal.append(&mut records)) {
        Ok(()) => journal.file.sync_data().map(|()| Ok(journal)),
        Err(AppendError::Refused(error)) => Ok(Err(RefusedRecords { records, error })),
        Err(AppendError::Torn(error)) => Err(error),
    }
}

/// The inner error says that there is no new journal.
pub(super) fn begin(
    disk: &dyn Disk,
    reserve: &Reserve,
    (temporary, target): (&FileName, &FileName),
    new: &NewJournal,
    mut records: Vec<u8>,
    frees_room: bool,
) -> io::Result<Result<Journal, RefusedRecords>> {
    reserve.hold(disk);
    let is_without_room = |error: &io::Error| frees_room && is_full(error);
    match reserve.with_room(disk, is_without_room, || new.write(disk, temporary, &mut records)) {
        Ok(journal) => {
            journal.file.sync_all()?;
            match disk.rename(temporary, target) {
                Err(error) if is_harmless(&error) => {
                    remove(disk, temporary)?;
                    return Ok(Err(RefusedRecords { records, error }));
                }
                renamed => renamed?,
            }
            disk.sync_name(target)?;
            Ok(Ok(journal))
        }
        Err(error) => Ok(Err(RefusedRecords { records, error })),
    }
}

/// A save that cannot be made has changed nothing, and may be tried again.
fn save(disk: &dyn Disk, reserve: &Reserve, name: &PhextName, snapshot: &Phext) -> io::Result<Outcome> {
    match reserve.with_room(disk, is_full, || write(disk, name, snapshot)) {
        Ok(written) => Ok(Outcome::Written(written)),
        Err(error) if is_harmless(&error) => give_up(disk, name, error),
        Err(error) => Err(error),
    }
}

fn give_up(disk: &dyn Disk, name: &PhextName, error: io::Error) -> io::Result<Outcome> {
    // What cannot be written cannot be removed either.
    let is_there = error.kind() != io::ErrorKind::AlreadyExists && !is_unwritable(&error);
    if is_there {
        remove_new(disk, name)?;
    }
    Ok(Outcome::NotSaved(error))
}

fn remove_new(disk: &dyn Disk, name: &PhextName) -> io::Result<()> {
    remove(disk, &FileName::NewPhext(name.clone()))
}

/// Removes a temporary file. One that cannot be removed gives way to the next one.
fn remove(disk: &dyn Disk, file: &FileName) -> io::Result<()> {
    match disk.remove(file) {
        Err(error) if is_harmless(&error) => Ok(()),
        removed => removed,
    }
}

/// Writes a journal's records over themselves, so that a sync has something to do.
fn rewrite(journal: &dyn DiskFile, bytes: u64) -> io::Result<()> {
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
    Ok(())
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
    note: Option<Note>,
) -> io::Result<Outcome> {
    let target = FileName::Phext(name.clone());
    if disk.identity(&target)? != expected {
        return remove_new(disk, name).map(|()| Outcome::Foreign);
    }
    match disk.rename(&FileName::NewPhext(name.clone()), &target) {
        Err(error) if is_harmless(&error) => return give_up(disk, name, error),
        renamed => renamed?,
    }
    disk.sync_name(&target)?;
    // The rename has changed the time of change; were anything else new, it would not be our file's.
    let renamed = written.file.identity()?;
    let (changed_s, changed_ns) = (renamed.changed_s, renamed.changed_ns);
    let identity = Identity { changed_s, changed_ns, ..written.identity };
    let noted = note.map(Note::write).transpose()?.flatten();
    Ok(Outcome::Published(identity, noted))
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
