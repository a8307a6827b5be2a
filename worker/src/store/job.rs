//! Jobs: everything that waits for the disk, and therefore runs on another thread than the store.
//!
//! A job owns all that it needs, so requests are served while it runs. Its result goes to [`crate::store::Store::finish`].

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

/// A save is synced each time that it has written so many bytes. So a large one never fills the disk's queue: the journals
/// of other phexts are synced in between.
const SYNC_EVERY_BYTES: u64 = 4 * 1024 * 1024;

const REWRITE_BYTES: usize = 256 * 1024;

/// Work on files.
#[derive(Debug)]
pub struct Job {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) reserve: Arc<Reserve>,
    pub(super) task: Task,
}

/// Which files a job works on.
#[derive(Debug)]
pub(super) enum Task {
    /// Writes files of one phext.
    Phext(PhextName, Work),
    /// Removes journals that are not needed.
    Retire(RetireJob),
    /// Reads a phext, or the retired keys.
    Read(ReadJob),
}

/// What a job does with a phext's files.
#[derive(Debug)]
pub(super) enum Work {
    /// Append records to the journal, and sync it.
    Append { journal: Journal, records: Vec<u8>, frees_space: bool },
    /// Write the records of an old journal over themselves, so that the sync has something to write, and sync it.
    Rewrite { journal: Journal },
    /// Write a new journal that ends with these records, sync it, and give it its name.
    BeginJournal { new: Box<NewJournal>, records: Vec<u8>, frees_space: bool },
    /// Write a new file beside the phext's.
    WriteFile { phext: Phext },
    /// Rename the new file over the phext's, if that is still the expected one, and note it in the journal.
    Publish { new_file: NewFile, expected: Option<Identity>, note: Option<Note> },
    /// Remove the new file: the journal does not have its edits.
    Discard,
}

/// The result of a job. After an error of the disk, only a new start can tell what the disk has.
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
    Rewritten,
    /// The old journal is read-only, and its file system has failed: it is unknown what of it is on disk.
    Unconfirmed,
    /// The new journal is durable and has its name.
    JournalBegun(Journal),
    /// The records are in no journal, and the phext has the journal that it had.
    Refused(RefusedRecords),
    FileWritten(NewFile),
    /// The phext's file as it is now, and the journal if the note is in it.
    Published(Identity, Option<Journal>),
    /// Another program has changed the phext's file: it stays, and the new one was removed.
    ChangedByOther,
    /// The disk has no space for a save, or the phext's file cannot be replaced. The new file was removed.
    NotSaved(io::Error),
    /// The new file was removed.
    Discarded,
}

/// Records that the disk did not take, and why.
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
    /// Appends the record. No request waits for it: after a new start the file's contents say the same.
    fn write(mut self) -> io::Result<Option<Journal>> {
        match self.journal.append(&mut self.record) {
            Ok(()) => Ok(Some(self.journal)),
            Err(AppendError::Refused(_)) => Ok(None),
            Err(AppendError::Torn(error)) => Err(error),
        }
    }
}

/// The complete and synced file of a save, under its temporary name.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) identity: Identity,
    pub(super) digest: FileDigest,
}

impl Job {
    pub(super) fn new(disk: &Arc<dyn Disk>, reserve: &Arc<Reserve>, task: Task) -> Self {
        Self { disk: Arc::clone(disk), reserve: Arc::clone(reserve), task }
    }

    /// Does the work, and blocks until the disk has done it.
    pub fn run(self) -> Done {
        let Self { disk, reserve, task } = self;
        Done(match task {
            Task::Phext(name, work) => work
                .run(&*disk, &reserve, &name)
                .and_then(|outcome| check_directory(&*disk, &name, outcome))
                .map(|outcome| Finished::Phext(name, outcome)),
            Task::Retire(job) => job.run(&*disk, &reserve).map(Finished::Retired),
            Task::Read(job) => Ok(Finished::Read(job.run(&*disk))),
        })
    }
}

/// What was written into a directory that has been removed is read by no worker again. The same is true of a folder, which
/// has the text of each phext that is written there.
fn check_directory(disk: &dyn Disk, name: &PhextName, outcome: Outcome) -> io::Result<Outcome> {
    use Outcome::{Appended, JournalBegun, Published, Rewritten};
    let is_progress = matches!(outcome, Appended(_) | JournalBegun(_) | Published(..) | Rewritten);
    let is_folder_gone =
        is_progress && name.folder().is_some() && disk.identity(&FileName::Phext(name.clone()))?.is_none();
    if is_folder_gone || disk.is_removed()? {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the directory has been removed"));
    }
    Ok(outcome)
}

impl Work {
    fn run(self, disk: &dyn Disk, reserve: &Reserve, name: &PhextName) -> io::Result<Outcome> {
        match self {
            Self::Append { journal, records, frees_space } => {
                let appended = append(disk, reserve, journal, records, frees_space)?;
                Ok(appended.map_or_else(Outcome::Refused, Outcome::Appended))
            }
            Self::Rewrite { journal } => rewrite_and_sync(&journal, name),
            Self::BeginJournal { new, records, frees_space } => {
                let (temporary, target) =
                    (FileName::NewJournal(name.clone()), FileName::Journal(name.clone()));
                let begun = begin(disk, reserve, (&temporary, &target), &new, records, frees_space)?;
                Ok(begun.map_or_else(Outcome::Refused, Outcome::JournalBegun))
            }
            Self::WriteFile { phext } => write_file(disk, reserve, name, &phext),
            Self::Publish { new_file, expected, note } => {
                publish(disk, name, &new_file, expected, note).inspect(|_| reserve.hold(disk))
            }
            Self::Discard => remove_new_file(disk, name).map(|()| Outcome::Discarded),
        }
    }
}

/// Appends records and syncs the journal. The inner error says that the journal is as it was.
pub(super) fn append(
    disk: &dyn Disk,
    reserve: &Reserve,
    mut journal: Journal,
    mut records: Vec<u8>,
    frees_space: bool,
) -> io::Result<Result<Journal, RefusedRecords>> {
    if !records.is_empty() {
        reserve.hold(disk);
    }
    let may_use_reserve =
        |error: &AppendError| frees_space && matches!(error, AppendError::Refused(error) if is_full(error));
    match reserve.with_space(disk, may_use_reserve, || journal.append(&mut records)) {
        Ok(()) => journal.file.sync_data().map(|()| Ok(journal)),
        Err(AppendError::Refused(error)) => Ok(Err(RefusedRecords { records, error })),
        Err(AppendError::Torn(error)) => Err(error),
    }
}

/// Writes and syncs a new journal, and gives it its name. The inner error says that there is no new journal.
pub(super) fn begin(
    disk: &dyn Disk,
    reserve: &Reserve,
    (temporary, target): (&FileName, &FileName),
    new: &NewJournal,
    mut records: Vec<u8>,
    frees_space: bool,
) -> io::Result<Result<Journal, RefusedRecords>> {
    reserve.hold(disk);
    let may_use_reserve = |error: &io::Error| frees_space && is_full(error);
    match reserve.with_space(disk, may_use_reserve, || new.write(disk, temporary, &mut records)) {
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

/// Makes a journal durable that an earlier worker wrote.
fn rewrite_and_sync(journal: &Journal, name: &PhextName) -> io::Result<Outcome> {
    match rewrite(&*journal.file, journal.bytes) {
        // Nothing was written, so the sync has nothing to do, unless the file system stopped at an error.
        Err(error) if is_unwritable(&error) => Ok(match journal.file.sync_data() {
            Ok(()) => Outcome::Rewritten,
            Err(error) => {
                tracing::error!(
                    phext = %name, %error,
                    "the file system has failed; the last writes may not be on disk and are not acknowledged"
                );
                Outcome::Unconfirmed
            }
        }),
        rewritten => rewritten.and_then(|()| journal.file.sync_data()).map(|()| Outcome::Rewritten),
    }
}

/// Writes a journal's records over themselves, so that a sync has something to do.
fn rewrite(journal: &dyn DiskFile, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; REWRITE_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let wanted = usize::try_from(bytes - offset).unwrap_or(REWRITE_BYTES).min(REWRITE_BYTES);
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        if read_full(journal, piece, offset)? != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        journal.write_all_at(piece, offset)?;
        offset += wanted as u64;
    }
    Ok(())
}

/// Writes the new file of a save. A harmless failure has changed nothing, and the save may be tried again.
fn write_file(disk: &dyn Disk, reserve: &Reserve, name: &PhextName, phext: &Phext) -> io::Result<Outcome> {
    let write = || {
        let mut sink = Sink {
            file: disk.create(&FileName::NewPhext(name.clone()))?,
            bytes: 0,
            synced_bytes: 0,
            hash: xxhash_rust::xxh3::Xxh3::new(),
        };
        phext.write_to(&mut sink)?;
        sink.finish()
    };
    match reserve.with_space(disk, is_full, write) {
        Ok(new_file) => Ok(Outcome::FileWritten(new_file)),
        Err(error) if is_harmless(&error) => give_up(disk, name, error),
        Err(error) => Err(error),
    }
}

fn publish(
    disk: &dyn Disk,
    name: &PhextName,
    new_file: &NewFile,
    expected: Option<Identity>,
    note: Option<Note>,
) -> io::Result<Outcome> {
    let target = FileName::Phext(name.clone());
    if disk.identity(&target)? != expected {
        return remove_new_file(disk, name).map(|()| Outcome::ChangedByOther);
    }
    match disk.rename(&FileName::NewPhext(name.clone()), &target) {
        Err(error) if is_harmless(&error) => return give_up(disk, name, error),
        renamed => renamed?,
    }
    disk.sync_name(&target)?;
    // The rename changed the ctime. If anything else is new, another program has changed the file.
    let renamed = new_file.file.identity()?;
    let (changed_s, changed_ns) = (renamed.changed_s, renamed.changed_ns);
    let identity = Identity { changed_s, changed_ns, ..new_file.identity };
    let noted = note.map(Note::write).transpose()?.flatten();
    Ok(Outcome::Published(identity, noted))
}

fn give_up(disk: &dyn Disk, name: &PhextName, error: io::Error) -> io::Result<Outcome> {
    // What cannot be written cannot be removed either.
    let is_there = error.kind() != io::ErrorKind::AlreadyExists && !is_unwritable(&error);
    if is_there {
        remove_new_file(disk, name)?;
    }
    Ok(Outcome::NotSaved(error))
}

fn remove_new_file(disk: &dyn Disk, name: &PhextName) -> io::Result<()> {
    remove(disk, &FileName::NewPhext(name.clone()))
}

/// Removes a temporary file. One that cannot be removed is replaced by the next one.
pub(super) fn remove(disk: &dyn Disk, file: &FileName) -> io::Result<()> {
    match disk.remove(file) {
        Err(error) if is_harmless(&error) => Ok(()),
        removed => removed,
    }
}

/// Writes a file front to back, and computes its digest.
struct Sink {
    file: Box<dyn DiskFile>,
    bytes: u64,
    synced_bytes: u64,
    hash: xxhash_rust::xxh3::Xxh3,
}

impl Sink {
    fn finish(self) -> io::Result<NewFile> {
        self.file.sync_all()?;
        let digest = FileDigest { bytes: self.bytes, xxh3: self.hash.digest128() };
        Ok(NewFile { identity: self.file.identity()?, file: self.file, digest })
    }
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
