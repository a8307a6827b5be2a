//! Every phext of a tenant, with its size and its scrolls. Those that are not in memory are not kept there
//! for it.

use std::collections::{BTreeSet, HashMap};

use sq_shared::phext_name::PhextName;

use crate::store::cache::Content;
use crate::store::disk::{FileName, Identity};
use crate::store::open_phext::OpenPhext;
use crate::store::recovery::{PhextFiles, RecoveryError, recover};
use crate::store::{Pending, Store, StoreError};

/// A phext in a listing.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: PhextName,
    /// The bytes of its file, once everything is saved.
    pub bytes: u64,
    /// Its scrolls; `None` when it is damaged or cannot be read.
    pub scrolls: Option<usize>,
}

impl Store {
    /// Every phext, sorted by name.
    ///
    /// # Errors
    /// The directory or a file cannot be read.
    pub fn list(&mut self) -> Result<Pending<Vec<Listed>>, StoreError> {
        if self.is_in_doubt {
            return Err(StoreError::InDoubt);
        }
        let mut files: HashMap<PhextName, Identity> = HashMap::new();
        let mut names: BTreeSet<PhextName> = self.cache.names().cloned().collect();
        for (file, identity) in self.disk.list()? {
            match file {
                FileName::Phext(name) => {
                    names.insert(name.clone());
                    files.insert(name, identity);
                }
                FileName::Journal(name) => _ = names.insert(name),
                FileName::NewPhext(_) | FileName::NewJournal(_) | FileName::Reserve => {}
            }
        }
        let known = std::mem::take(&mut self.counts);
        let mut listed = Vec::new();
        for name in names {
            listed.extend(self.look_at(name, &files, &known)?);
        }
        let open = self.cache.names().filter_map(|name| self.cache.open(name));
        let tickets = open.flat_map(|open| open.durable().into_parts().1).collect();
        Ok(Pending { value: listed, tickets })
    }

    /// One row; none for a name without scrolls and without a file.
    fn look_at(
        &mut self,
        name: PhextName,
        files: &HashMap<PhextName, Identity>,
        known: &HashMap<PhextName, (Identity, usize)>,
    ) -> Result<Option<Listed>, StoreError> {
        let file = files.get(&name).copied();
        let row = |name, bytes, scrolls| Some(Listed { name, bytes, scrolls });
        match self.cache.get(&name) {
            Some(Content::Open(open)) if is_listable(open, file) => {
                let phext = open.durable().into_untold();
                let (bytes, scrolls) = (phext.file_bytes(), phext.scroll_count());
                return Ok(if file.is_some() || scrolls > 0 {
                    row(name, bytes, Some(scrolls))
                } else {
                    None
                });
            }
            Some(Content::Damaged(known)) if known.files == PhextFiles::of(&*self.disk, &name)? => {
                return Ok(row(name, file.map_or(0, |file| file.bytes), None));
            }
            Some(Content::Open(_) | Content::Damaged(_)) | None => {}
        }
        if let (Some(file), Some((counted, scrolls))) = (file, known.get(&name))
            && file == *counted
        {
            self.counts.insert(name.clone(), (file, *scrolls));
            return Ok(row(name, file.bytes, Some(*scrolls)));
        }
        let file_bytes = file.map_or(0, |file| file.bytes);
        match recover(&*self.disk, &name, self.limits.quota_bytes) {
            Ok(None) => Ok(None),
            // One that cannot be read is listed all the same; the others are no worse for it.
            Err(RecoveryError::Io(_) | RecoveryError::Damaged(_)) => Ok(row(name, file_bytes, None)),
            Ok(Some(found)) if found.synced < found.logged || found.saved < found.last_edit => {
                // What it shows must become durable first, so it comes into memory for that.
                let phext = self.load(&name)?.into_untold();
                let (bytes, scrolls) = (phext.file_bytes(), phext.scroll_count());
                Ok(row(name, bytes, Some(scrolls)))
            }
            Ok(Some(found)) => {
                let (bytes, scrolls) = (found.phext.file_bytes(), found.phext.scroll_count());
                if let Some(file) = found.file {
                    self.counts.insert(name.clone(), (file, scrolls));
                }
                Ok(if found.file.is_some() || scrolls > 0 { row(name, bytes, Some(scrolls)) } else { None })
            }
        }
    }
}

/// Whether what is in memory may stand for what is on disk: jobs may be about to change the file.
fn is_listable(open: &OpenPhext, file: Option<Identity>) -> bool {
    open.file() == file || !open.is_quiet()
}
