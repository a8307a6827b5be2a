//! Lets one writer at a time change the registry: the commands and the admin API hold this lock from reading it to
//! writing it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::edit::EditError;
use crate::file_lock::lock_within;
use crate::{layout, regular_file};

/// How long a change of the registry waits for others. The longest change makes 500 tenants and their directories,
/// which takes seconds.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// While this exists, no other process of ours changes the registry.
pub struct RegistryLock {
    /// The registry, links followed, which is to be read and replaced: a file has one lock, whatever its name.
    pub(super) target: PathBuf,
    /// The lock.
    _file: File,
}

impl RegistryLock {
    /// Waits for the lock.
    pub(super) fn take(registry: &Path, patience: Duration) -> Result<Self, EditError> {
        let target = regular_file::target_of(registry);
        let target = target.map_err(|error| EditError::Io(registry.to_owned(), error))?;
        let path = layout::registry_lock(&target);
        let failed = |error| EditError::Io(path.clone(), error);
        let file = regular_file::open_append(&path).map_err(failed)?;
        match lock_within(&file, patience) {
            Ok(()) => Ok(Self { target, _file: file }),
            Err(TryLockError::WouldBlock) => Err(EditError::Locked(path)),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_for_a_lock_ends() {
        let folder = tempfile::tempdir().unwrap();
        let registry = folder.path().join("tenants.toml");
        let held = RegistryLock::take(&registry, Duration::ZERO).unwrap();
        let refused = RegistryLock::take(&registry, Duration::from_millis(20)).err().unwrap();
        let told = refused.to_string();
        assert!(told.contains("tenants.toml.lock has been held by another process"), "{told}");
        drop(held);
        RegistryLock::take(&registry, Duration::ZERO).unwrap();
    }
}
