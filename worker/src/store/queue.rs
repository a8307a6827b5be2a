//! Records on their way into a journal. One job appends all that are queued, and the disk may refuse them.
//!
//! A record is applied in memory when it is queued. If the disk refuses it, memory goes back to what the journal has, and
//! every request that rests on the record learns that through its commit point.

use std::io;
use std::sync::{Arc, OnceLock};

use crate::store::disk::{is_full, is_unwritable};
use crate::store::record::{Entry, Stamp, encode};

/// Why the disk did not take records. The journal is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The disk is full.
    Full,
    /// The file system or the journal is read-only.
    Unwritable,
    /// Something that is not a plain file has the name of a temporary file.
    Blocked,
    /// Another error, which has been logged.
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

/// Whether the disk refused records that are appended together. All clones share the answer.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedRefusal(Arc<OnceLock<Refusal>>);

impl SharedRefusal {
    /// Reports that the disk refused them.
    pub(super) fn set(&self, refusal: Refusal) {
        // Records are refused once: then they are gone.
        let _ = self.0.set(refusal);
    }

    /// Why the disk refused them; `None` if it has not.
    pub(super) fn get(&self) -> Option<Refusal> {
        self.0.get().copied()
    }
}

/// Records in the order in which they go into the journal.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Without checksums: these depend on the journal that takes the records.
    pub(super) records: Vec<u8>,
    /// Of the commit points that rest on these records. There is one, or several after [`Queue::put_back`].
    refusals: Vec<SharedRefusal>,
    /// One of the records frees space, so the reserve may be used for them.
    pub(super) frees_space: bool,
}

impl Queue {
    pub(super) fn push(&mut self, stamp: &Stamp, entry: &Entry<'_>, frees_space: bool) {
        if self.refusals.is_empty() {
            self.refusals.push(SharedRefusal::default());
        }
        self.frees_space |= frees_space;
        encode(stamp, entry, &mut self.records);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Where a refusal of the last record is reported; `None` when there is none.
    pub(super) fn refusal(&self) -> Option<&SharedRefusal> {
        self.refusals.last()
    }

    pub(super) fn put_back(&mut self, older: Self) {
        let newer = std::mem::replace(self, older);
        self.records.extend(newer.records);
        self.refusals.extend(newer.refusals);
        self.frees_space |= newer.frees_space;
    }

    /// Drops all of them, and reports why.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        for shared in std::mem::take(self).refusals {
            shared.set(refusal);
        }
    }
}
