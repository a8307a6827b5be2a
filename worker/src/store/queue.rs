//! Records on their way into a journal: they wait for one job that writes all of them at once, and the disk may refuse
//! them.
//!
//! A record is applied in memory when it is queued. If the disk then refuses it, memory goes back to what the journal
//! has, and every request that rests on the record is told so by its ticket.

use std::io;
use std::sync::{Arc, OnceLock};

use crate::store::disk::{is_full, is_unwritable};
use crate::store::record::{Entry, Stamp, encode};

/// Why the disk did not take records. The journal is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There was no room for them.
    Full,
    /// The file system, or the journal, can only be read.
    Unwritable,
    /// A temporary file is in the way, and is not a plain file.
    Blocked,
    /// The system refused for another reason, which has been logged.
    Failed(io::ErrorKind),
}

impl From<&io::Error> for Refusal {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            _ if is_full(error) => Self::Full,
            _ if is_unwritable(error) => Self::Unwritable,
            io::ErrorKind::AlreadyExists => Self::Blocked,
            kind => Self::Failed(kind),
        }
    }
}

/// What became of records that are written together. Clones tell the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Fate(Arc<OnceLock<Refusal>>);

impl Fate {
    /// Says that the disk did not take them.
    pub(super) fn refuse(&self, refusal: Refusal) {
        // Records are refused once: then they are gone.
        let _ = self.0.set(refusal);
    }

    /// Why the disk did not take them; `None` while it may, and once it has.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.0.get().copied()
    }
}

/// Records in the order in which they go into the journal.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Without checksums: these depend on the journal that takes the records.
    pub(super) records: Vec<u8>,
    /// Of those who wait for these records.
    pub(super) fates: Vec<Fate>,
    /// One of the records gives room back, so the reserve may be used for them.
    pub(super) frees_room: bool,
}

impl Queue {
    pub(super) fn push(&mut self, stamp: &Stamp, entry: &Entry<'_>, frees_room: bool) {
        if self.fates.is_empty() {
            self.fates.push(Fate::default());
        }
        self.frees_room |= frees_room;
        encode(stamp, entry, &mut self.records);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.records.len() as u64
    }

    /// What becomes of the last record; `None` when there is none.
    pub(super) fn fate(&self) -> Option<&Fate> {
        self.fates.last()
    }

    /// Puts older records in front again.
    pub(super) fn put_back(&mut self, older: Self) {
        let newer = std::mem::replace(self, older);
        self.records.extend(newer.records);
        self.fates.extend(newer.fates);
        self.frees_room |= newer.frees_room;
    }

    /// Gives all of them up.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        for fate in std::mem::take(self).fates {
            fate.refuse(refusal);
        }
    }
}
