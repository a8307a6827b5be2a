//! A tenant's phexts: read, changed, and durable before a change is reported. It knows no HTTP.
//!
//! The `.phext` files are the truth. Each operation first looks whether the file is still the one that
//! is in memory; another program may have written it. A write replaces the whole file (see `disk`),
//! and only then counts.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;

use crate::store::disk::{Disk, Identity};

pub mod breaks;
mod disk;
mod phext;
#[cfg(test)]
mod tests;

pub use crate::store::disk::OpenError;
pub use crate::store::phext::cursor::Cursor;
pub use crate::store::phext::joined::Joined;
pub use crate::store::phext::parser::PhextParser;
pub use crate::store::phext::scroll::{Fragments, Scroll};
pub use crate::store::phext::{Damage, Edit, Phext, State};

/// What a tenant may use. It may change while the store is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The files of all phexts together; `None` is no limit.
    pub quota_bytes: Option<u64>,
    /// What phexts may take in memory. The one in use is always kept, however large it is.
    pub memory_bytes: u64,
}

/// A tenant's phexts.
#[derive(Debug)]
pub struct Store {
    disk: Disk,
    limits: Limits,
    /// Those in memory. One without a file is never here, so that asking for names costs nothing.
    loaded: HashMap<PhextName, Loaded>,
    /// What they take in memory, all together.
    held_bytes: u64,
    /// The same names by their last use: whoever goes first is found without a search.
    by_use: BTreeMap<u64, PhextName>,
    /// Counts the uses, to know which phext was used last.
    uses: u64,
    /// What a phext without a file reads as.
    empty: Phext,
}

#[derive(Debug)]
struct Loaded {
    identity: Identity,
    /// Damage is remembered too: the file need not be read again to refuse it.
    content: Result<Phext, Damage>,
    last_use: u64,
}

/// Why an operation failed. What was acknowledged still stands. A write that failed is not on disk, unless
/// the system refused a sync or a rename: then it may be, and every later operation is
/// [`StoreError::InDoubt`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file of the phext cannot be understood, so it is neither read nor overwritten.
    #[error("the phext's file is damaged: {0}")]
    Damaged(#[from] Damage),
    /// The write would take more than the tenant may use.
    #[error("{used} of {quota} bytes are used, and the write needs more than is left")]
    QuotaExceeded {
        /// Bytes of all phexts now.
        used: u64,
        /// The limit.
        quota: u64,
    },
    /// The disk has no room.
    #[error("the disk is full")]
    DiskFull {
        /// Bytes of all phexts now.
        used: u64,
        /// The limit, if there is one.
        quota: Option<u64>,
    },
    /// A sync or a rename failed before: the store must be opened anew to know what is on disk.
    #[error("the disk failed while it was written to, and what it holds is in doubt")]
    InDoubt,
    /// Anything else that the system says.
    #[error("the data directory cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// A phext in a listing.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: PhextName,
    /// The bytes of its file.
    pub bytes: u64,
    /// Its scrolls; `None` when the file is damaged.
    pub scrolls: Option<usize>,
}

impl Store {
    /// Opens a tenant's directory, which is made when it is missing. No other worker may have it open.
    ///
    /// # Errors
    /// Another worker has it open, or the system refuses.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, OpenError> {
        let disk = Disk::open(dir)?;
        Ok(Self {
            disk,
            limits,
            loaded: HashMap::new(),
            held_bytes: 0,
            by_use: BTreeMap::new(),
            uses: 0,
            empty: Phext::default(),
        })
    }

    /// Changes what the tenant may use, from the next operation on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether the disk failed so that nothing more is read or written before the store is opened anew.
    pub fn is_in_doubt(&self) -> bool {
        self.disk.is_in_doubt()
    }

    /// A phext as its file is now. One that does not exist is empty, and no file is made.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn read(&mut self, name: &PhextName) -> Result<&Phext, StoreError> {
        self.refresh(name)?;
        self.evict_others(name);
        match self.loaded.get(name) {
            None => Ok(&self.empty),
            Some(Loaded { content: Ok(phext), .. }) => Ok(phext),
            Some(Loaded { content: Err(damage), .. }) => Err(damage.clone().into()),
        }
    }

    /// Changes a scroll; when this returns, the change is on disk. Gives how many bytes the scroll had.
    ///
    /// # Errors
    /// The file is damaged, the quota or the disk is full, or the system refuses.
    pub fn write(&mut self, name: &PhextName, at: Coordinate, edit: Edit) -> Result<usize, StoreError> {
        self.refresh(name)?;
        let (mut phext, file) = match self.let_go(name) {
            None => (Phext::default(), None),
            Some(Loaded { content: Ok(phext), identity, .. }) => (phext, Some(identity)),
            Some(damaged) => {
                let reason = damaged.content.as_ref().err().cloned();
                self.insert(name, damaged);
                return Err(reason.unwrap_or(Damage::NotAFile).into());
            }
        };
        let bytes_before = phext.scroll(&at).len();
        let written = self.replace(name, &mut phext, file, at, edit);
        // After an error it is read again.
        if let Ok(Some(identity)) = written {
            self.keep(name, identity, Ok(phext));
        }
        self.evict_others(name);
        written.map(|_| bytes_before)
    }

    /// Every phext, sorted by name.
    ///
    /// # Errors
    /// The directory or a file cannot be read.
    pub fn list(&mut self) -> Result<Vec<Listed>, StoreError> {
        self.check_doubt()?;
        let mut listed = Vec::new();
        for (name, bytes) in self.disk.list()? {
            let scrolls = match self.read(&name) {
                Ok(phext) => Some(phext.scroll_count()),
                Err(StoreError::Damaged(_)) => None,
                Err(error) => return Err(error),
            };
            listed.push(Listed { name, bytes, scrolls });
        }
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    /// Makes an edit and the file of it; gives what the file is then.
    fn replace(
        &self,
        name: &PhextName,
        phext: &mut Phext,
        file: Option<Identity>,
        at: Coordinate,
        edit: Edit,
    ) -> Result<Option<Identity>, StoreError> {
        if phext.is_unchanged_by(&at, &edit) {
            return Ok(file);
        }
        self.check_quota(file.map_or(0, |file| file.bytes), phext.file_bytes_after(&at, &edit))?;
        phext.apply(at, &edit);
        match self.disk.replace(name, |file| phext.write_to(file)) {
            Ok(identity) => Ok(Some(identity)),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// A write that makes its file no longer always passes: it is how a tenant gets below the quota.
    fn check_quota(&self, bytes_before: u64, bytes_after: u64) -> Result<(), StoreError> {
        let Some(quota) = self.limits.quota_bytes else { return Ok(()) };
        if bytes_after <= bytes_before {
            return Ok(());
        }
        let used = self.used_bytes()?;
        if used.saturating_sub(bytes_before).saturating_add(bytes_after) > quota {
            return Err(StoreError::QuotaExceeded { used, quota });
        }
        Ok(())
    }

    fn used_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.list()?.iter().map(|(_, bytes)| bytes).sum())
    }

    fn explain(&self, error: io::Error) -> StoreError {
        match self.used_bytes() {
            Ok(used) if disk::is_full(&error) => {
                StoreError::DiskFull { used, quota: self.limits.quota_bytes }
            }
            _ => StoreError::Io(error),
        }
    }

    /// Even a write that changes nothing would acknowledge bytes that may not be durable.
    fn check_doubt(&self) -> Result<(), StoreError> {
        if self.is_in_doubt() { Err(StoreError::InDoubt) } else { Ok(()) }
    }

    /// Brings what is in memory up to date with the file.
    fn refresh(&mut self, name: &PhextName) -> Result<(), StoreError> {
        self.check_doubt()?;
        let on_disk = self.disk.identity(name)?;
        self.uses += 1;
        if let Some(loaded) = self.loaded.get_mut(name)
            && Some(loaded.identity) == on_disk
        {
            self.by_use.remove(&loaded.last_use);
            self.by_use.insert(self.uses, name.clone());
            loaded.last_use = self.uses;
            return Ok(());
        }
        self.let_go(name);
        match on_disk {
            None => {}
            Some(identity) if !identity.is_file() => self.keep(name, identity, Err(Damage::NotAFile)),
            Some(_) => {
                if let Some((identity, bytes)) = self.disk.read(name)? {
                    self.keep(name, identity, Phext::parse(&bytes));
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, name: &PhextName, identity: Identity, content: Result<Phext, Damage>) {
        if let Err(damage) = &content {
            tracing::error!(phext = %name, %damage, "a phext's file is damaged, and is left alone");
        }
        self.insert(name, Loaded { identity, content, last_use: self.uses });
    }

    fn insert(&mut self, name: &PhextName, loaded: Loaded) {
        self.let_go(name);
        self.held_bytes += loaded.memory_bytes();
        self.by_use.insert(loaded.last_use, name.clone());
        self.loaded.insert(name.clone(), loaded);
    }

    fn let_go(&mut self, name: &PhextName) -> Option<Loaded> {
        let gone = self.loaded.remove(name)?;
        self.held_bytes = self.held_bytes.saturating_sub(gone.memory_bytes());
        self.by_use.remove(&gone.last_use);
        Some(gone)
    }

    /// Lets phexts go, the least recently used first, until those in memory fit; never the one in use.
    /// All of them can be read again: nothing in memory is newer than its file.
    fn evict_others(&mut self, in_use: &PhextName) {
        while self.held_bytes > self.limits.memory_bytes {
            let Some(oldest) = self.by_use.values().find(|name| *name != in_use).cloned() else { return };
            self.let_go(&oldest);
        }
    }
}

impl Loaded {
    /// What an entry takes beside its scrolls, so that many empty phexts count as well.
    const OVERHEAD_BYTES: u64 = 512;

    fn memory_bytes(&self) -> u64 {
        Self::OVERHEAD_BYTES + self.content.as_ref().map_or(0, Phext::memory_bytes)
    }
}
