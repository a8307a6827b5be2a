//! The directory of the simulated disk: the names that programs see, and those that a power cut leaves.

use std::collections::BTreeMap;

use super::fate::Fate;
use crate::store::disk::FileName;
use sq_tests::random::Random;

/// Changes reach the disk in their order, as with a journal of metadata (ext4, XFS, btrfs).
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    pub(super) cached: BTreeMap<FileName, u64>,
    durable: BTreeMap<FileName, u64>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Set(FileName, u64),
    Remove(FileName),
    Rename { from: FileName, to: FileName, inode: u64 },
}

impl Names {
    pub(super) fn set(&mut self, file: &FileName, inode: u64) {
        self.change(Change::Set(file.clone(), inode));
    }

    pub(super) fn remove(&mut self, file: &FileName) {
        self.change(Change::Remove(file.clone()));
    }

    pub(super) fn rename(&mut self, from: &FileName, to: &FileName, inode: u64) {
        self.change(Change::Rename { from: from.clone(), to: to.clone(), inode });
    }

    fn change(&mut self, change: Change) {
        apply(&change, &mut self.cached);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            apply(&change, &mut self.durable);
        }
    }

    /// The directory after a power cut: the first few of the unsynced changes are there. A sync that failed has
    /// dropped none of them: metadata goes through a journal, which knows what it has not written.
    pub(super) fn crash(&mut self, random: &mut Random) {
        let changes = std::mem::take(&mut self.unsynced);
        let stay = Fate::draw(random).prefix(changes.len(), random);
        for change in &changes[..stay] {
            apply(change, &mut self.durable);
        }
        self.cached = self.durable.clone();
    }
}

fn apply(change: &Change, names: &mut BTreeMap<FileName, u64>) {
    match change {
        Change::Set(file, inode) => _ = names.insert(file.clone(), *inode),
        Change::Remove(file) => _ = names.remove(file),
        Change::Rename { from, to, inode } => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
    }
}
