//! Caches how many scrolls files have: a listing reads a file once for as long as it stays the same.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sq_shared::phext_name::PhextName;

use crate::store::disk::{Disk, Identity};
use crate::store::phext::parser::PhextParser;
use crate::store::recovery::{PhextFiles, RecoveryError, read_text, summarize_journal};

/// Most files that are remembered: more than a tenant has phexts by default. They take 2.2 MiB.
const FILES: usize = 114_688;

/// Counts by file. Only listing jobs use it, from their threads.
#[derive(Debug, Default)]
pub(super) struct Counts {
    digests: RandomState,
    /// The key is a digest of the name and the identity: 17 bytes per file, however long its name is.
    known: Mutex<HashMap<u64, u32>>,
}

impl Counts {
    /// The scrolls in a file, if they were counted.
    pub(super) fn get(&self, name: &PhextName, file: &Identity) -> Option<usize> {
        let known = self.known().get(&self.digests.hash_one((name, file))).copied();
        known.and_then(|scrolls| usize::try_from(scrolls).ok())
    }

    /// Remembers the scrolls in a file.
    pub(super) fn put(&self, name: &PhextName, file: &Identity, scrolls: usize) {
        let mut known = self.known();
        if known.len() >= FILES {
            // Counts of files that no longer exist are dropped only here.
            known.clear();
        }
        if let Ok(scrolls) = u32::try_from(scrolls) {
            known.insert(self.digests.hash_one((name, file)), scrolls);
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, u32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content of a phext that is not in memory.
pub(super) enum Counted {
    /// Its file has everything.
    Saved { file: Identity, scrolls: usize },
    /// Its journal may have edits that the file does not have.
    Unsaved,
}

/// Reads a phext without keeping it; `None` when there is neither a file nor a text.
pub(super) fn count(
    disk: &dyn Disk,
    name: &PhextName,
    quota_bytes: Option<u64>,
) -> Result<Option<Counted>, RecoveryError> {
    PhextFiles::find(disk, name)?.check_new()?;
    let summary = summarize_journal(disk, name)?;
    let text = read_text(disk, name, quota_bytes, summary.as_ref(), PhextParser::counting())?;
    if summary.is_some_and(|summary| summary.may_have_more(text.as_ref().map(|text| text.digest))) {
        return Ok(Some(Counted::Unsaved));
    }
    Ok(text.map(|text| Counted::Saved { file: text.identity, scrolls: text.phext.scroll_count() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_stands_for_one_state_of_one_file_and_there_are_so_many() {
        let counts = Counts::default();
        let file = |bytes| Identity {
            inode: 1,
            modified_s: 2,
            modified_ns: 3,
            changed_s: 4,
            changed_ns: 5,
            bytes,
            is_file: true,
        };
        let name = |text: &str| PhextName::parse(text).unwrap();
        counts.put(&name("a"), &file(0), 7);
        assert_eq!(counts.get(&name("a"), &file(0)), Some(7));
        assert_eq!((counts.get(&name("a"), &file(1)), counts.get(&name("b"), &file(0))), (None, None));
        for bytes in 1..FILES {
            counts.put(&name("a"), &file(bytes as u64), bytes);
        }
        assert_eq!((counts.get(&name("a"), &file(0)), counts.known().len()), (Some(7), FILES));
        counts.put(&name("b"), &file(0), 8);
        assert_eq!((counts.get(&name("b"), &file(0)), counts.known().len()), (Some(8), 1));
    }
}
