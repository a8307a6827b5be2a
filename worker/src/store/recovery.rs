//! Reads a phext from the disk: its file, and the edits of its journal that are not in the file yet.
//!
//! The journal has the digest of each file that the store was about to publish. So at whatever moment a kill or a power cut
//! came, the file's contents tell how much of the journal they include. A file that the journal does not know is another
//! program's. It is the truth: of the journal only edits that are newer than it are applied.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use sq_shared::phext_name::PhextName;

use crate::store::damage::Damage;
use crate::store::disk::{Disk, DiskFile, FileName, Identity};
use crate::store::idempotency::{KEYS_PER_PHEXT, RememberedKeys};
use crate::store::job;
use crate::store::journal::{self, Base, Header, Journal, JournalDamage, JournalEnd};
use crate::store::links::BadLink;
use crate::store::open_phext::durability::Position;
use crate::store::open_phext::journal_writer::JournalState;
use crate::store::phext::parser::PhextParser;
use crate::store::phext::{Phext, TextDamage};
use crate::store::record::{Entry, FileDigest, Format, LARGEST_FOUND_SEQUENCE, Record, Stamp};
use crate::store::usage::Files;

const READ_BYTES: usize = 256 * 1024;

/// Why a phext could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecoveryError {
    #[error(transparent)]
    Damaged(#[from] Damage),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<JournalDamage> for RecoveryError {
    fn from(damage: JournalDamage) -> Self {
        Self::Damaged(damage.into())
    }
}

/// A phext as the disk has it.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) phext: Phext,
    /// The last record that requests may rest on, and the last edit in `phext`.
    pub(super) position: Position,
    /// The file when it was read.
    pub(super) file: Option<Identity>,
    /// What is in the file: its digest, and the last edit in it.
    pub(super) base: Base,
    pub(super) keys: RememberedKeys,
    pub(super) last_sequence: u64,
    /// The last record that is known to be durable.
    pub(super) synced: u64,
    pub(super) journal: JournalState,
}

/// The records of a journal that go over into its next generation.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    pub(super) journal: Journal,
    pub(super) header: Header,
    /// The offset of the first record that may go over.
    pub(super) from: u64,
    pub(super) keep: Keep,
    /// What the next generation starts from.
    pub(super) base: Base,
}

/// Which edits go over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keep {
    /// All after this sequence.
    After(u64),
    /// Of these, only those that were written after this time, in microseconds since 1970.
    NewerThan { sequence: u64, time_us: u64 },
    /// None of them.
    Nothing,
}

impl Keep {
    pub(super) fn keeps(self, record: &Record) -> bool {
        match self {
            Self::After(sequence) => record.stamp.sequence > sequence,
            Self::NewerThan { sequence, time_us } => {
                record.stamp.sequence > sequence && record.stamp.time_us > time_us
            }
            Self::Nothing => false,
        }
    }
}

/// The identities of a phext's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PhextFiles {
    text: Option<Identity>,
    journal: Option<Identity>,
    new_text: Option<Identity>,
    new_journal: Option<Identity>,
}

impl PhextFiles {
    pub(super) fn find(disk: &dyn Disk, name: &PhextName) -> io::Result<Self> {
        Ok(Self {
            text: disk.identity(&FileName::Phext(name.clone()))?,
            journal: disk.identity(&FileName::Journal(name.clone()))?,
            new_text: disk.identity(&FileName::NewPhext(name.clone()))?,
            new_journal: disk.identity(&FileName::NewJournal(name.clone()))?,
        })
    }

    pub(super) fn are_any(&self) -> bool {
        self.text.is_some() || self.journal.is_some()
    }

    /// The lengths of text and journal; a missing file has 0 bytes.
    pub(super) fn lengths(&self) -> Files {
        let bytes = |file: Option<Identity>| file.map_or(0, |file| file.bytes);
        Files { text_bytes: bytes(self.text), spare_bytes: bytes(self.journal) }
    }

    /// New files are written under temporary names. What has such a name must be a plain file, which is replaced.
    pub(super) fn check_new(&self) -> Result<(), Damage> {
        for (identity, suffix) in [(self.new_text, ".phext"), (self.new_journal, ".journal")] {
            if identity.is_some_and(|identity| !identity.is_file) {
                return Err(Damage::InTheWay { suffix });
            }
        }
        Ok(())
    }
}

/// Reads a phext; `None` when there is neither a file nor a journal. One in a folder must have its file.
pub(super) fn recover(
    disk: &dyn Disk,
    name: &PhextName,
    quota_bytes: Option<u64>,
) -> Result<Option<Recovered>, RecoveryError> {
    PhextFiles::find(disk, name)?.check_new()?;
    let is_in_folder = name.folder().is_some();
    if is_in_folder {
        remove_leftovers(disk, name)?;
    }
    let summary = summarize_journal(disk, name)?;
    let text = read_text(disk, name, quota_bytes, summary.as_ref(), PhextParser::default())?;
    match (summary, text) {
        (_, None) if is_in_folder => Err(Damage::Link(BadLink::Missing).into()),
        (None, None) => Ok(None),
        (None, Some(text)) => Ok(Some(Recovered {
            phext: text.phext,
            position: Position::default(),
            file: Some(text.identity),
            base: Base { sequence: 0, digest: Some(text.digest) },
            keys: RememberedKeys::new(KEYS_PER_PHEXT),
            last_sequence: 0,
            synced: 0,
            journal: JournalState::None,
        })),
        (Some(summary), text) => summary.replay(text, is_in_folder).map(Some),
    }
}

/// Those in the directory itself are removed at the start.
fn remove_leftovers(disk: &dyn Disk, name: &PhextName) -> io::Result<()> {
    for file in [FileName::NewPhext(name.clone()), FileName::NewJournal(name.clone())] {
        job::remove(disk, &file)?;
    }
    Ok(())
}

/// Reads a phext's journal; `None` when there is none.
pub(super) fn summarize_journal(
    disk: &dyn Disk,
    name: &PhextName,
) -> Result<Option<JournalSummary>, RecoveryError> {
    match open_plain(disk, &FileName::Journal(name.clone()))? {
        Opened::Missing => Ok(None),
        Opened::NotAFile => Err(JournalDamage::NotAFile.into()),
        Opened::File(file) => Ok(Some(JournalSummary::read(file.into())??)),
    }
}

/// What a journal says, without its edits.
pub(super) struct JournalSummary {
    file: Arc<dyn DiskFile>,
    header: Header,
    pub(super) end: JournalEnd,
    /// The last file that is known to have been published.
    published: Base,
    /// Files that may have been published since, the oldest first.
    pending: Vec<Base>,
    keys: RememberedKeys,
    /// When it was read. Its keys count as no older than that.
    began: Instant,
    last_sequence: u64,
    /// The last record that a client may have been told about.
    last_change: u64,
    /// The last record that another one calls durable.
    durable: u64,
    pub(super) records: u64,
}

impl JournalSummary {
    pub(super) fn read(file: Arc<dyn DiskFile>) -> io::Result<Result<Self, JournalDamage>> {
        let header = match journal::read_header(&*file)? {
            Ok(header) => header,
            Err(damage) => return Ok(Err(damage)),
        };
        let mut summary = Self {
            file: Arc::clone(&file),
            header,
            end: JournalEnd { bytes: 0, torn_bytes: 0 },
            published: header.base,
            pending: Vec::new(),
            keys: RememberedKeys::new(KEYS_PER_PHEXT),
            began: Instant::now(),
            last_sequence: header.base.sequence,
            last_change: header.base.sequence,
            durable: header.base.sequence,
            records: 0,
        };
        let end = journal::scan(&*file, &header, |record| summary.note(&record))?;
        if summary.last_sequence > LARGEST_FOUND_SEQUENCE {
            return Ok(Err(JournalDamage::Sequence));
        }
        Ok(end.map(|end| Self { end, ..summary }))
    }

    fn note(&mut self, record: &Record) {
        let Stamp { sequence, durable, time_us } = record.stamp;
        self.records += 1;
        self.last_sequence = sequence;
        self.durable = self.durable.max(durable);
        if let Some((key, write)) = record.entry.key(time_us) {
            self.keys.insert(key, write, self.began);
        }
        match &record.entry {
            Entry::Edit { .. } | Entry::Key { .. } => self.last_change = sequence,
            Entry::Saved { upto, digest } => {
                self.pending.push(Base { sequence: *upto, digest: Some(*digest) });
            }
            Entry::Published { upto } => {
                let Some(index) = self.pending.iter().position(|saved| saved.sequence == *upto) else {
                    return;
                };
                let newer = self.pending.split_off(index + 1);
                if let Some(published) = std::mem::replace(&mut self.pending, newer).pop() {
                    self.published = published;
                }
            }
        }
    }

    /// The last sequence in a file with this digest, if it is one of the store's.
    pub(super) fn sequence_of(&self, digest: Option<FileDigest>) -> Option<u64> {
        let mut known = self.pending.iter().rev().chain([&self.published]);
        known.find(|base| base.digest == digest).map(|base| base.sequence)
    }

    /// Which edits are applied on top of a file with this digest.
    fn keep(&self, digest: Option<FileDigest>, file: Option<&Identity>) -> Keep {
        match (self.sequence_of(digest), file) {
            (Some(sequence), _) => Keep::After(sequence),
            (None, None) => Keep::Nothing,
            (None, Some(file)) => {
                Keep::NewerThan { sequence: self.published.sequence, time_us: changed_us(file) }
            }
        }
    }

    /// How many edits are applied on top of a file with this digest.
    pub(super) fn count_unsaved(
        &self,
        digest: Option<FileDigest>,
        file: Option<&Identity>,
    ) -> io::Result<Result<u64, JournalDamage>> {
        let keep = self.keep(digest, file);
        let mut unsaved = 0;
        let replayed = self.records(|record| {
            unsaved += u64::from(matches!(record.entry, Entry::Edit { .. }) && keep.keeps(&record));
        })?;
        Ok(replayed.map(|()| unsaved))
    }

    /// Visits the valid records again.
    fn records(&self, visit: impl FnMut(Record)) -> io::Result<Result<(), JournalDamage>> {
        journal::replay(&*self.file, &self.header, journal::first_record(), self.end.bytes, visit)
    }

    /// Whether there may be edits that a file with this digest does not have.
    pub(super) fn may_have_more(&self, digest: Option<FileDigest>) -> bool {
        match self.sequence_of(digest) {
            Some(sequence) => !self.is_clean(sequence, true),
            None => self.last_change > self.published.sequence || self.end.torn_bytes > 0,
        }
    }

    /// Whether a file with all edits up to a sequence is complete and published for good.
    fn is_clean(&self, in_file: u64, is_ours: bool) -> bool {
        self.is_published(in_file, is_ours) && self.end.torn_bytes == 0 && self.last_change <= in_file
    }

    /// Without a record that says so, the rename of the store's own file may be lost with the next power cut.
    fn is_published(&self, in_file: u64, is_ours: bool) -> bool {
        in_file == self.published.sequence || !is_ours
    }

    /// Whether the store may have written a file of this length.
    fn knows_length(&self, bytes: u64) -> bool {
        let mut known = self.pending.iter().chain([&self.published]);
        known.any(|base| base.digest.is_some_and(|digest| digest.bytes == bytes))
    }

    /// Applies the edits that the file does not have.
    fn replay(self, text: Option<Text>, is_in_folder: bool) -> Result<Recovered, RecoveryError> {
        let digest = text.as_ref().map(|text| text.digest);
        let file = text.as_ref().map(|text| text.identity);
        let known = self.sequence_of(digest);
        let keep = self.keep(digest, file.as_ref());
        let mut phext = text.map(|text| text.phext).unwrap_or_default();
        let mut is_changed = false;
        if self.last_change > known.unwrap_or(self.published.sequence) {
            let replayed = self.records(|record| {
                if let Entry::Edit { at, edit, .. } = &record.entry
                    && keep.keeps(&record)
                {
                    phext.apply(*at, edit);
                    is_changed = true;
                }
            })?;
            replayed?;
        }
        // If no edit counts, no note of a save does either: the next generation starts after them.
        let keep = if known.is_some() || is_changed { keep } else { Keep::Nothing };
        let base = Base { sequence: self.base_sequence(known, is_changed), digest };
        Ok(self.recovered(phext, file, base, keep, (known.is_some(), is_in_folder)))
    }

    /// The last sequence that counts as in the file. Edits that another program's file supersedes count as applied: a
    /// request may still wait for them.
    fn base_sequence(&self, known: Option<u64>, is_changed: bool) -> u64 {
        known.unwrap_or(if is_changed { self.published.sequence } else { self.last_sequence })
    }

    fn recovered(
        self,
        phext: Phext,
        file: Option<Identity>,
        in_file: Base,
        keep: Keep,
        (is_ours, is_in_folder): (bool, bool),
    ) -> Recovered {
        let is_published = self.is_published(in_file.sequence, is_ours);
        // The start does not sync the names in a folder. A new journal does.
        let is_clean = self.is_clean(in_file.sequence, is_ours) && !is_in_folder;
        if self.end.torn_bytes > 0 {
            let bytes = self.end.torn_bytes;
            tracing::warn!(
                bytes,
                "dropped a write that was interrupted by the last stop; it was never acknowledged"
            );
        }
        let (header, from) = (self.header, journal::first_record());
        let journal = Journal { file: self.file, generation: header.generation, bytes: self.end.bytes };
        let journal = if is_clean && is_ours && header.generation.format == Format::Masked {
            JournalState::Current(journal)
        } else {
            let (keep, base) = if is_published {
                (keep, in_file)
            } else {
                (Keep::After(self.published.sequence), self.published)
            };
            JournalState::Stale { tail: Tail { journal, header, from, keep, base }, is_stuck: false }
        };
        let last_sequence = self.last_sequence;
        let (position, synced) = if is_clean {
            (Position { record: self.durable, edit: in_file.sequence }, self.durable)
        } else {
            (Position { record: last_sequence, edit: last_sequence }, in_file.sequence)
        };
        Recovered { phext, position, file, base: in_file, keys: self.keys, last_sequence, synced, journal }
    }
}

/// The contents of a phext's file.
pub(super) struct Text {
    pub(super) phext: Phext,
    pub(super) identity: Identity,
    pub(super) digest: FileDigest,
}

/// Reads a phext's file; `None` when there is none. The parser decides whether the scrolls are kept.
pub(super) fn read_text(
    disk: &dyn Disk,
    name: &PhextName,
    quota_bytes: Option<u64>,
    summary: Option<&JournalSummary>,
    parser: PhextParser,
) -> Result<Option<Text>, RecoveryError> {
    let file = match open_plain(disk, &FileName::Phext(name.clone()))? {
        Opened::Missing => return Ok(None),
        Opened::NotAFile => return Err(Damage::from(TextDamage::NotAFile).into()),
        Opened::File(file) => file,
    };
    // Taken before the contents: if another program writes meanwhile, the next `stat` differs, and the file is read again.
    let identity = file.identity()?;
    let is_ours = summary.is_some_and(|summary| summary.knows_length(identity.bytes));
    if let Some(quota) = quota_bytes.filter(|quota| identity.bytes > *quota && !is_ours) {
        return Err(Damage::LargerThanQuota { bytes: identity.bytes, quota }.into());
    }
    let (phext, digest) = parse(&*file, parser)?;
    Ok(Some(Text { phext, identity, digest }))
}

/// Reads a text in pieces, so that memory never holds the whole file beside its scrolls.
fn parse(file: &dyn DiskFile, mut parser: PhextParser) -> Result<(Phext, FileDigest), RecoveryError> {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        let read = journal::read_full(file, &mut buffer, offset)?;
        let piece = buffer.get(..read).unwrap_or_default();
        if piece.is_empty() {
            break;
        }
        hash.update(piece);
        parser.push(piece).map_err(Damage::from)?;
        offset += read as u64;
    }
    let phext = parser.finish().map_err(Damage::from)?;
    Ok((phext, FileDigest { bytes: offset, xxh3: hash.digest128() }))
}

pub(super) enum Opened {
    Missing,
    NotAFile,
    File(Box<dyn DiskFile>),
}

pub(super) fn open_plain(disk: &dyn Disk, name: &FileName) -> io::Result<Opened> {
    match disk.identity(name)? {
        None => Ok(Opened::Missing),
        Some(identity) if !identity.is_file => Ok(Opened::NotAFile),
        Some(_) => Ok(disk.open(name)?.map_or(Opened::Missing, Opened::File)),
    }
}

/// The file's ctime, in microseconds since 1970.
fn changed_us(identity: &Identity) -> u64 {
    let microseconds = i128::from(identity.changed_s) * 1_000_000 + i128::from(identity.changed_ns) / 1000;
    u64::try_from(microseconds).unwrap_or(0)
}
