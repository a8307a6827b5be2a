//! A tenant taken out: from the registry first, so that nothing starts its worker again; its directory is moved or
//! deleted when the worker has let go of it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sq_shared::config::Config;
use sq_shared::file_lock::lock_within;
use sq_shared::layout;
use sq_shared::registry::Tenant;
use sq_shared::secret_file;
use sq_shared::tenant::TenantName;

use super::{ChangeError, find, open};

/// How long the pool may take to notice a change. Until it has, it starts a worker for whoever waits at the slot, and
/// makes its directory anew: that must not be under our hands.
const POOL_NOTICE_TIME: Duration = Duration::from_secs(1);

/// How long a removed tenant's worker has to end then: the pool gives requests in flight 30 s by default.
pub const WORKER_END_TIMEOUT: Duration = Duration::from_secs(40);

/// What became of a removed tenant's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// There was none.
    WithoutDirectory,
    /// It is in the archive, here.
    Archived(PathBuf),
    /// It is deleted.
    Purged,
}

/// Removes a tenant, and waits for its worker. Others may change the registry meanwhile.
///
/// # Errors
/// There is none of this name, or its directory cannot be moved or deleted, or is in use.
pub fn remove(config: &Config, name: &TenantName, purges: bool) -> Result<Removed, ChangeError> {
    let tenant = take_out(config, name)?;
    put_away(config, &tenant, purges)
}

/// Takes a tenant out of the registry.
///
/// # Errors
/// There is none of this name, or the registry cannot be written.
pub fn take_out(config: &Config, name: &TenantName) -> Result<Tenant, ChangeError> {
    let mut registry = open(config)?;
    let tenant = find(&registry, name)?.clone();
    registry.remove(name)?;
    registry.commit(config)?;
    Ok(tenant)
}

/// Waits until the worker of a tenant that was taken out has let go of its directory, and moves or deletes that.
///
/// # Errors
/// The directory cannot be moved or deleted, or is in use.
pub fn put_away(config: &Config, tenant: &Tenant, purges: bool) -> Result<Removed, ChangeError> {
    std::thread::sleep(POOL_NOTICE_TIME);
    let directory = layout::tenant_dir(&config.gateway.data_root, tenant);
    // What cannot be looked at is not taken for absent: it would be the next tenant's of this name.
    match directory.try_exists() {
        Ok(true) => {}
        Ok(false) => return Ok(Removed::WithoutDirectory),
        Err(error) => return Err(ChangeError::Directory(directory, error)),
    }
    let _directory_lock = wait_for_worker(&directory)?;
    // Locked, so that nobody adds a tenant with this directory between the question and the move.
    let registry = open(config)?;
    let here = layout::resolved(&directory);
    let is_taken =
        |other: &Tenant| layout::resolved(&layout::tenant_dir(&config.gateway.data_root, other)) == here;
    if registry.registry().tenants.iter().any(is_taken) {
        return Err(ChangeError::DirectoryTakenAgain(directory));
    }
    let archived = archive(&config.gateway.data_root, tenant, &directory);
    let archive = archived.map_err(|error| ChangeError::Directory(directory, error))?;
    // To delete takes as long as there are files; nobody waits for it, and what a stop leaves of it is no tenant's.
    drop(registry);
    if !purges {
        return Ok(Removed::Archived(archive));
    }
    let purged = std::fs::remove_dir_all(&archive).map(|()| Removed::Purged);
    purged.map_err(|error| ChangeError::Directory(archive, error))
}

fn archive(data_root: &Path, tenant: &Tenant, directory: &Path) -> io::Result<PathBuf> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let archive = layout::archives_dir(data_root).join(layout::archive_name(&tenant.name, now_s));
    let archives = archive.parent().unwrap_or(Path::new("."));
    secret_file::create_dir(archives)?;
    std::fs::rename(directory, &archive)?;
    secret_file::sync_dir(archives)?;
    Ok(archive)
}

/// A worker holds a lock on its directory while it lives.
fn wait_for_worker(directory: &Path) -> Result<File, ChangeError> {
    let lock = File::open(directory).map_err(|error| ChangeError::Directory(directory.to_owned(), error))?;
    match lock_within(&lock, WORKER_END_TIMEOUT) {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ChangeError::WorkerStillRuns(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(ChangeError::Directory(directory.to_owned(), error)),
    }
}
