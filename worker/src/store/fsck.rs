//! Verifies a tenant's directory without changing it: every file is read whole, as it would be to serve it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use sq_shared::phext_name::PhextName;

use crate::store::damage::Damage;
use crate::store::disk::os::{OpenError, OsDisk};
use crate::store::disk::{Disk, FileName, path_of};
use crate::store::links::resolve_link;
use crate::store::phext::parser::PhextParser;
use crate::store::record::FileDigest;
use crate::store::recovery::{JournalSummary, RecoveryError, Text, read_text, summarize_journal};
use crate::store::retired_keys;

/// What a directory holds.
#[derive(Debug)]
pub struct Report {
    /// A worker had the directory open, and may have been changing it.
    pub is_in_use: bool,
    /// Every file of the store, by phext; files that belong to no phext come last.
    pub files: Vec<Checked>,
}

/// A file of the directory.
#[derive(Debug)]
pub struct Checked {
    /// Its name in the directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// What is in it.
    pub finding: Finding,
}

/// What is in a file.
#[derive(Debug)]
#[expect(missing_docs, reason = "most names say enough")]
pub enum Finding {
    Phext {
        scrolls: usize,
        origin: Origin,
    },
    /// Another name of this phext.
    Link {
        target: PhextName,
    },
    Journal {
        /// Of valid ones.
        records: u64,
        /// Edits that are not in the phext's file; `None` when that cannot be read.
        unsaved: Option<u64>,
        /// Bytes at the end that are not a record: a write that was interrupted and never acknowledged.
        torn_bytes: u64,
        /// Another program removed the phext's file, so the phext is empty.
        is_file_gone: bool,
    },
    /// Idempotency keys of phexts without a journal.
    Keys {
        keys: u64,
    },
    /// Space that is kept for a full disk.
    Reserve,
    /// A temporary file that a worker left.
    Leftover,
    Damaged(Damage),
    Unreadable(io::Error),
}

/// Which program wrote a phext's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The store: its journal has the digest.
    Known,
    /// Another program: no journal has the digest.
    Foreign,
    /// Its journal cannot be read.
    Unknown,
}

impl From<Damage> for Finding {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl From<RecoveryError> for Finding {
    fn from(error: RecoveryError) -> Self {
        match error {
            RecoveryError::Damaged(damage) => Self::Damaged(damage),
            RecoveryError::Io(error) => Self::Unreadable(error),
        }
    }
}

/// Reads all phexts and journals of a directory. The quota is not known here, so no file is too large.
///
/// # Errors
/// The directory does not exist or cannot be read.
pub fn check(dir: &Path) -> Result<Report, OpenError> {
    let wrap = |source| OpenError::Io { path: dir.to_owned(), source };
    let disk = OsDisk::inspect(dir)?;
    let was_in_use = disk.is_in_use().map_err(wrap)?;
    let (mut names, mut others) = (BTreeSet::new(), BTreeSet::new());
    for file in disk.files().map_err(wrap)? {
        match file {
            FileName::Phext(name) | FileName::Journal(name) => _ = names.insert(name),
            FileName::NewPhext(_)
            | FileName::NewJournal(_)
            | FileName::Keys
            | FileName::NewKeys
            | FileName::Reserve => _ = others.insert(file),
        }
    }
    let mut files = Vec::new();
    for name in names {
        let (phext, journal) = check_phext(&disk, &name);
        files.extend(checked(&disk, &FileName::Phext(name.clone()), phext));
        files.extend(checked(&disk, &FileName::Journal(name), journal));
    }
    for file in others {
        let is_plain = disk.identity(&file).map_err(wrap)?.is_none_or(|identity| identity.is_file);
        let finding = match &file {
            FileName::Reserve => Finding::Reserve,
            FileName::Keys => {
                retired_keys::count(&disk).map_or_else(Finding::from, |keys| Finding::Keys { keys })
            }
            FileName::NewKeys if !is_plain => Damage::InTheWay { suffix: ".keys" }.into(),
            FileName::NewJournal(_) if !is_plain => Damage::InTheWay { suffix: ".journal" }.into(),
            _ if !is_plain => Damage::InTheWay { suffix: ".phext" }.into(),
            _ => Finding::Leftover,
        };
        files.extend(checked(&disk, &file, Some(finding)));
    }
    // A worker may have started or ended meanwhile.
    let is_in_use = was_in_use || disk.is_in_use().map_err(wrap)?;
    Ok(Report { is_in_use, files })
}

/// A row of the report; `None` for a file that does not exist any more.
fn checked(disk: &OsDisk, file: &FileName, finding: Option<Finding>) -> Option<Checked> {
    let finding = finding?;
    let name = path_of(file).to_string_lossy().into_owned();
    match disk.identity(file) {
        Ok(None) => None,
        Ok(Some(identity)) => Some(Checked { name, bytes: identity.bytes, finding }),
        Err(error) => Some(Checked { name, bytes: 0, finding: Finding::Unreadable(error) }),
    }
}

/// What is in a phext's file and in its journal; `None` for a missing one.
fn check_phext(disk: &OsDisk, name: &PhextName) -> (Option<Finding>, Option<Finding>) {
    let journal = summarize_journal(disk, name);
    let link = match resolve_link(disk, name) {
        Ok(None) => None,
        Ok(Some(target)) => Some(Finding::Link { target }),
        Err(error) => Some(error.into()),
    };
    if link.is_some() {
        let journal = journal.map(|summary| summary.map(|summary| check_journal(&summary, None)));
        return (link, journal.unwrap_or_else(|error| Some(error.into())));
    }
    let text = read_text(disk, name, None, None, PhextParser::counting());
    let summary = journal.as_ref().ok().and_then(Option::as_ref);
    let journal_finding =
        summary.map(|summary| check_journal(summary, text.as_ref().ok().map(Option::as_ref)));
    let text_finding = match text {
        Ok(None) => None,
        Ok(Some(text)) => {
            let (scrolls, origin) = (text.phext.scroll_count(), origin(&journal, text.digest));
            Some(Finding::Phext { scrolls, origin })
        }
        Err(error) => Some(error.into()),
    };
    (text_finding, journal_finding.or(journal.err().map(Finding::from)))
}

fn origin(journal: &Result<Option<JournalSummary>, RecoveryError>, digest: FileDigest) -> Origin {
    match journal {
        Ok(Some(summary)) if summary.sequence_of(Some(digest)).is_some() => Origin::Known,
        Ok(_) => Origin::Foreign,
        Err(_) => Origin::Unknown,
    }
}

/// What is in a valid journal; the text is `None` when it cannot be read, and `Some(None)` when there is none.
fn check_journal(summary: &JournalSummary, text: Option<Option<&Text>>) -> Finding {
    let (digest, identity) =
        (text.flatten().map(|text| text.digest), text.flatten().map(|text| &text.identity));
    let unsaved = match text.map(|_| summary.count_unsaved(digest, identity)) {
        None => None,
        Some(Ok(Ok(unsaved))) => Some(unsaved),
        Some(Ok(Err(damage))) => return Finding::Damaged(damage.into()),
        Some(Err(error)) => return Finding::Unreadable(error),
    };
    let is_file_gone = matches!(text, Some(None)) && summary.sequence_of(None).is_none();
    let (records, torn_bytes) = (summary.records, summary.end.torn_bytes);
    Finding::Journal { records, unsaved, torn_bytes, is_file_gone }
}
