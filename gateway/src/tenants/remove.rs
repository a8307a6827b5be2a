//! Removes a tenant: first from the registry, so that its worker is not started again. When the worker has stopped, the
//! directory is archived or deleted. A directory outside the data root is left unless the operator has confirmed that it
//! goes too.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use sq_shared::clock;
use sq_shared::config::Config;
use sq_shared::data_root::DataRoot;
use sq_shared::file_lock::lock_within;
use sq_shared::registry::{Registry, Tenant, directories};
use sq_shared::secret_file;
use sq_shared::tenant::TenantName;
use sq_shared::{layout, mounts};

use super::{ChangeError, data_root, find, open};

/// How long the pool may take to notice a change. Until then it starts a worker for a connection that waits at the slot,
/// and that worker opens the directory.
const POOL_NOTICE_TIME: Duration = Duration::from_secs(1);

/// How long a removed tenant's worker may take to stop: by default the pool gives requests in flight 30 s.
pub(crate) const WORKER_END_TIMEOUT: Duration = Duration::from_secs(40);

/// What to do with a tenant's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disposal {
    /// Delete it instead of archiving it.
    pub purge: bool,
    /// Do so even outside the data root: the operator has said `--yes`.
    pub take_foreign: bool,
}

/// What happened to a removed tenant's directory. Paths have their links resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Removed {
    /// There was no directory at this path.
    NoDirectory(PathBuf),
    Archived {
        from: PathBuf,
        to: PathBuf,
        /// A link that the registry named as the directory, left because it is outside the data root.
        left_link: Option<PathBuf>,
    },
    /// Deleted; with a link that was left, as of an archived one.
    Purged(PathBuf, Option<PathBuf>),
    Left(PathBuf, WhyLeft),
}

/// Why a directory was neither moved nor deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WhyLeft {
    /// It may not be ours.
    #[error("it is outside the data root {}", .0.display())]
    Foreign(PathBuf),
    /// It cannot be a tenant's directory, whatever the registry said.
    #[error("it is {0}")]
    Unfit(String),
    #[error("it is not a directory")]
    NotADirectory,
    #[error("a file system is mounted at {}; unmount it first", .0.display())]
    Mounted(PathBuf),
    #[error("it is on another file system than the archive {}", .0.display())]
    OtherFileSystem(PathBuf),
}

impl WhyLeft {
    /// The option that takes the directory nevertheless, if there is one.
    pub(crate) fn confirmation(&self) -> &'static str {
        if matches!(self, Self::Foreign(_)) { " (--yes confirms that it goes too)" } else { "" }
    }
}

/// Removes a tenant, waits for its worker, and disposes of its directory. The registry is not locked while it waits.
///
/// # Errors
/// There is no such tenant, or its directory is in use or cannot be moved or deleted. If the directory is to be deleted
/// but would be left, nothing is changed.
pub(crate) fn remove(config: &Config, name: &TenantName, disposal: Disposal) -> Result<Removed, ChangeError> {
    if disposal.purge {
        let registry = open(config)?;
        let registry = registry.registry();
        data_root(config, registry)?;
        let real = layout::resolved(&find(registry, name)?.directory(&config.gateway.data_root));
        let why = why_left(&real, config, disposal).map_err(ChangeError::UnknownMounts)?;
        if let Some(why) = why.filter(|_| real.exists()) {
            return Err(ChangeError::WouldNotBePurged(real, why));
        }
    }
    let tenant = remove_from_registry(config, name)?;
    dispose_of_directory(config, &tenant, disposal)
}

/// Removes a tenant from the registry, and leaves its directory.
///
/// # Errors
/// There is no such tenant, the registry cannot be written, or the mount points cannot be read, without which the
/// directory could not be disposed of.
pub(crate) fn remove_from_registry(config: &Config, name: &TenantName) -> Result<Tenant, ChangeError> {
    mounts::points().map_err(ChangeError::UnknownMounts)?;
    let mut registry = open(config)?;
    // Without the data root, the directory would seem to be missing, and the next tenant of this name would get it.
    data_root(config, registry.registry())?;
    let tenant = find(registry.registry(), name)?.clone();
    registry.remove(name)?;
    registry.commit(config)?;
    Ok(tenant)
}

/// Waits until the worker of a removed tenant has closed its directory, then moves or deletes that.
pub(crate) fn dispose_of_directory(
    config: &Config,
    tenant: &Tenant,
    disposal: Disposal,
) -> Result<Removed, ChangeError> {
    std::thread::sleep(POOL_NOTICE_TIME);
    let named = tenant.directory(&config.gateway.data_root);
    // Not `data_root`, whose error says that nothing was changed: the tenant is removed already.
    let data_root = DataRoot::establish(config, &Registry::default())
        .map_err(|loss| ChangeError::Directory(named.clone(), io::Error::other(loss)))?;
    let removed = dispose(config, tenant, &named, disposal)?;
    if let Err(error) = data_root.forget(&tenant.name) {
        tracing::warn!(tenant = %tenant.name, %error, "failed to delete a removed tenant's note: the next tenant of this name must have a directory");
    }
    Ok(removed)
}

fn dispose(
    config: &Config,
    tenant: &Tenant,
    named: &Path,
    disposal: Disposal,
) -> Result<Removed, ChangeError> {
    // A directory that cannot be looked up may exist, and would go to the next tenant of this name.
    match named.try_exists() {
        Ok(true) => {}
        Ok(false) => return Ok(Removed::NoDirectory(layout::resolved(named))),
        Err(error) => return Err(ChangeError::Directory(named.to_owned(), error)),
    }
    let real = layout::resolved(named);
    if !real.is_dir() {
        return Ok(Removed::Left(real, WhyLeft::NotADirectory));
    }
    let failed = |error| ChangeError::Directory(real.clone(), error);
    let directory = open_directory(&real).map_err(failed)?;
    wait_for_worker(&directory, &real)?;
    if let Some(why) = why_left(&real, config, disposal).map_err(failed)? {
        return Ok(Removed::Left(real, why));
    }
    // The lock keeps other processes from adding a tenant with this directory between the check and the move.
    let registry = open(config)?;
    let is_shared = |other: &Tenant| {
        let theirs = layout::resolved(&other.directory(&config.gateway.data_root));
        theirs.starts_with(&real) || real.starts_with(&theirs)
    };
    if registry.registry().tenants.iter().any(is_shared) {
        return Err(ChangeError::DirectoryTakenAgain(real));
    }
    let moved = archive(&config.gateway.data_root, tenant, &real, &directory);
    // Deleting takes time in proportion to the files. It needs no registry lock: what is left after an interruption
    // belongs to no tenant.
    drop(registry);
    let archived = match moved {
        Ok(to) if disposal.purge => {
            purge(&to)?;
            None
        }
        Ok(to) => Some(to),
        // This process still holds the worker's lock, so no other worker opens the directory while it is deleted.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices && disposal.purge => {
            purge(&real)?;
            None
        }
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let archives = layout::archives_dir(&config.gateway.data_root);
            return Ok(Removed::Left(real, WhyLeft::OtherFileSystem(archives)));
        }
        Err(error) => return Err(failed(error)),
    };
    let left_link = remove_link(named, config, disposal)
        .map_err(|error| ChangeError::Directory(named.to_owned(), error))?;
    Ok(match archived {
        Some(to) => Removed::Archived { from: real, to, left_link },
        None => Removed::Purged(real, left_link),
    })
}

/// Why the directory must be left; `None` when it may be moved or deleted. Fails when the mount points cannot be read.
fn why_left(real: &Path, config: &Config, disposal: Disposal) -> io::Result<Option<WhyLeft>> {
    let data_root = layout::resolved(&config.gateway.data_root);
    if !real.starts_with(&data_root) && !disposal.take_foreign {
        return Ok(Some(WhyLeft::Foreign(data_root)));
    }
    // A link may have been changed since the registry was read.
    if let Some(objection) = directories::unfit(real, config) {
        return Ok(Some(WhyLeft::Unfit(objection)));
    }
    if !real.is_dir() {
        return Ok(Some(WhyLeft::NotADirectory));
    }
    Ok(mounts::points()?.into_iter().find(|point| point.starts_with(real)).map(WhyLeft::Mounted))
}

/// Moves an open directory into the archive. Does not follow a link in the last component of either path, and does not
/// move a directory that has replaced the open one.
fn archive(data_root: &Path, tenant: &Tenant, real: &Path, directory: &File) -> io::Result<PathBuf> {
    let now_s = clock::since_1970().as_secs();
    let archives = layout::archives_dir(data_root);
    let archived = layout::archive_name(&tenant.name, now_s);
    secret_file::create_dir(&archives)?;
    let into = open_directory(&archives)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", archives.display())))?;
    let from = open_directory(real.parent().unwrap_or(Path::new("/")))?;
    let name = real.file_name().unwrap_or_default();
    let (wanted, found) =
        (rustix::fs::fstat(directory)?, rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?);
    if (wanted.st_dev, wanted.st_ino) != (found.st_dev, found.st_ino) {
        return Err(io::Error::other("another program has replaced it"));
    }
    rustix::fs::renameat(&from, name, &into, &archived)?;
    into.sync_all()?;
    Ok(layout::resolved(&archives).join(archived))
}

fn purge(directory: &Path) -> Result<(), ChangeError> {
    fs::remove_dir_all(directory).map_err(|error| ChangeError::NotPurged(directory.to_owned(), error))
}

/// Deletes a link that led to the directory: dangling, it would be in the way of the next tenant of this name. A link
/// outside the data root is left, because it may not be ours.
fn remove_link(named: &Path, config: &Config, disposal: Disposal) -> io::Result<Option<PathBuf>> {
    let Some((folder, name)) = named.parent().zip(named.file_name()) else { return Ok(None) };
    let link = layout::resolved(folder).join(name);
    if !link.is_symlink() {
        return Ok(None);
    }
    if !link.starts_with(layout::resolved(&config.gateway.data_root)) && !disposal.take_foreign {
        return Ok(Some(link));
    }
    fs::remove_file(link).map(|()| None)
}

/// Fails for a link or a file, and does not wait for a pipe.
fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map(File::from).map_err(Errno::into)
}

/// Waits for the lock that a worker holds on its directory.
fn wait_for_worker(lock: &File, directory: &Path) -> Result<(), ChangeError> {
    match lock_within(lock, WORKER_END_TIMEOUT) {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(ChangeError::WorkerStillRuns(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(ChangeError::Directory(directory.to_owned(), error)),
    }
}
