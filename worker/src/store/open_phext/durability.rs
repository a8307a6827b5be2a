//! How far the writes to a phext have come: applied in memory, appended to its journal, synced, saved to its file.

use sq_shared::coordinate::Coordinate;

use crate::store::journal::Base;
use crate::store::phext::{Edit, Phext};
use crate::store::record::Stamp;

/// A place in the sequence of a phext's records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Position {
    /// The last record that must be durable. Records that only note a finished save do not count.
    pub(in crate::store) record: u64,
    /// The last edit.
    pub(in crate::store) edit: u64,
}

/// A phext at one position. It shares its pages with the other snapshots.
#[derive(Debug, Default, Clone)]
pub(super) struct Snapshot {
    pub(super) phext: Phext,
    pub(super) position: Position,
}

/// What is in memory, in the journal and in the file, and which writes are durable.
///
/// Only its methods change it. Invariants: `durable.edit <= appended.edit <= latest.edit <= last_sequence`. `synced`,
/// `base.sequence` and `durable` never go back. Only `latest` does, to `appended`, when the disk refuses records; their
/// numbers are not used again.
#[derive(Debug)]
pub(super) struct Durability {
    /// The last number that a record has got.
    pub(super) last_sequence: u64,
    /// With every write, in the journal or not.
    pub(super) latest: Snapshot,
    /// What the journal has.
    pub(super) appended: Snapshot,
    /// What reads get. `None` until what an earlier worker left unsynced has been synced.
    pub(super) durable: Option<Snapshot>,
    /// The last record that is synced.
    synced: u64,
    /// What the file has: its digest, and the last edit in it.
    pub(super) base: Base,
}

impl Durability {
    /// Of a phext that has neither a file nor a journal.
    pub(super) fn new() -> Self {
        let base = Base { sequence: 0, digest: None };
        Self { durable: Some(Snapshot::default()), ..Self::recovered(Snapshot::default(), 0, 0, base) }
    }

    /// Of a phext that was read from the disk.
    pub(super) fn recovered(latest: Snapshot, last_sequence: u64, synced: u64, base: Base) -> Self {
        Self { last_sequence, appended: latest.clone(), latest, durable: None, synced, base }
    }

    /// Continues where the phext was when it was evicted with a synced journal.
    pub(super) fn resume(&mut self, position: Position, last_sequence: u64) {
        self.last_sequence = self.last_sequence.max(last_sequence);
        self.latest.position = position;
        self.synced = position.record;
        self.appended = self.latest.clone();
        self.durable = None;
    }

    pub(super) fn next_stamp(&mut self, time_us: u64) -> Stamp {
        self.last_sequence += 1;
        Stamp { sequence: self.last_sequence, durable: self.synced, time_us }
    }

    /// The last record must be durable before what rests on it is answered.
    pub(super) fn require_last(&mut self) {
        self.latest.position.record = self.last_sequence;
    }

    /// Applies the edit of the last record.
    pub(super) fn apply(&mut self, at: Coordinate, edit: &Edit) {
        self.latest.phext.apply(at, edit);
        self.latest.position.edit = self.last_sequence;
    }

    /// The journal has been synced up to a record; the snapshot is what it says then.
    pub(super) fn note_synced(&mut self, upto: u64, appended: Snapshot) {
        self.synced = self.synced.max(upto);
        self.appended = appended;
    }

    /// The file has what was saved.
    pub(super) fn note_saved(&mut self, base: Base, saved: &Snapshot) {
        self.base = base;
        if self.durable.as_ref().is_none_or(|durable| durable.position.edit < saved.position.edit) {
            self.durable = Some(saved.clone());
        }
    }

    /// The file is gone, with every edit that the journal has.
    pub(super) fn note_file_removed(&mut self) {
        self.base = Base { sequence: self.appended.position.edit, digest: None };
    }

    /// The disk has refused the records that the journal does not have.
    pub(super) fn roll_back(&mut self) {
        self.latest = self.appended.clone();
    }

    /// Whether what rests on a position may be answered: its records are synced and, where answers wait for saves, its edits
    /// are in the file.
    pub(super) fn is_durable(&self, position: Position, waits_for_save: bool) -> bool {
        self.synced >= position.record && (!waits_for_save || self.base.sequence >= position.edit)
    }

    /// Gives reads what the journal has, once that is durable.
    pub(super) fn advance(&mut self, waits_for_save: bool) {
        let Snapshot { position, .. } = self.appended;
        let is_newer = self.durable.as_ref().is_none_or(|durable| durable.position.edit < position.edit);
        if is_newer && self.is_durable(position, waits_for_save) {
            self.durable = Some(self.appended.clone());
        }
    }

    /// Whether there are edits that the file does not have.
    pub(super) fn is_dirty(&self) -> bool {
        self.latest.position.edit > self.base.sequence
    }

    /// Whether every record that must be durable is.
    pub(super) fn is_synced(&self) -> bool {
        self.has_synced(self.latest.position.record)
    }

    pub(super) fn has_synced(&self, record: u64) -> bool {
        self.synced >= record
    }
}
