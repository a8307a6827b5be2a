//! A tenant taken out: from the registry first, so that nothing starts its worker again; its directory is moved or
//! deleted when the worker has let go of it. A directory outside the data root is left as it is, unless the operator
//! has confirmed that it goes too.

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

/// How long the pool may take to notice a change. Until it has, it starts a worker for a connection that waits at the
/// slot, which opens the directory.
const POOL_NOTICE_TIME: Duration = Duration::from_secs(1);

/// How long a removed tenant's worker has to end then: the pool gives requests in flight 30 s by default.
pub const WORKER_END_TIMEOUT: Duration = Duration::from_secs(40);

/// What is to become of a tenant's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disposal {
    /// It is deleted, and not moved to the archive.
    pub purges: bool,
    /// Even when it is outside the data root: the operator has said `--yes`.
    pub takes_foreign: bool,
}

/// What became of a removed tenant's directory. Each path has its links followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// There was none here.
    WithoutDirectory(PathBuf),
    /// It was moved.
    Archived {
        /// Where it was.
        from: PathBuf,
        /// Where it is.
        to: PathBuf,
        /// What led to it, and leads nowhere now.
        link: Option<LeftLink>,
    },
    /// It was here, and is deleted.
    Purged(PathBuf, Option<LeftLink>),
    /// It is here as it was.
    Left(PathBuf, WhyLeft),
}

/// A link that the registry named as the directory, and that was left because it lies outside the data root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftLink(pub PathBuf);

/// Why a directory was neither moved nor deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhyLeft {
    /// It is not ours to take.
    #[error("it is outside the data root {}", .0.display())]
    Foreign(PathBuf),
    /// It is not a tenant's, whatever the registry said when the tenant was in it.
    #[error("it is {0}")]
    Unfit(String),
    /// It is a file, or something else than a directory.
    #[error("it is not a directory")]
    NotADirectory,
    /// It is a mount point, or holds one.
    #[error("a file system is mounted at {}; unmount it first", .0.display())]
    Mounted(PathBuf),
    /// It cannot be moved into the archive.
    #[error("it is on another file system than the archive {}", .0.display())]
    OtherFileSystem(PathBuf),
}

impl WhyLeft {
    /// What to add to a command that is to take the directory nevertheless.
    pub fn confirmation(&self) -> &'static str {
        if matches!(self, Self::Foreign(_)) { " (--yes confirms that it goes too)" } else { "" }
    }
}

/// Removes a tenant, and waits for its worker. Others may change the registry meanwhile.
///
/// # Errors
/// No tenant has this name, or its directory cannot be moved or deleted, or is in use. When it is to be deleted and
/// would not be, nothing is changed.
pub fn remove(config: &Config, name: &TenantName, disposal: Disposal) -> Result<Removed, ChangeError> {
    if disposal.purges {
        let registry = open(config)?;
        data_root(config, registry.registry())?;
        let real = layout::resolved(&layout::tenant_dir(&config.gateway.data_root, find(&registry, name)?));
        let why = why_left(&real, config, disposal).map_err(ChangeError::UnknownMounts)?;
        if let Some(why) = why.filter(|_| real.exists()) {
            return Err(ChangeError::WouldNotBePurged(real, why));
        }
    }
    let tenant = take_out(config, name)?;
    put_away(config, &tenant, disposal)
}

/// Takes a tenant out of the registry.
///
/// # Errors
/// No tenant has this name, the registry cannot be written, or the mount points cannot be read: its directory could not be
/// put away then.
pub fn take_out(config: &Config, name: &TenantName) -> Result<Tenant, ChangeError> {
    mounts::points().map_err(ChangeError::UnknownMounts)?;
    let mut registry = open(config)?;
    // Else the directory would seem not to be there, and would be the next one's of this name.
    data_root(config, registry.registry())?;
    let tenant = find(&registry, name)?.clone();
    registry.remove(name)?;
    registry.commit(config)?;
    Ok(tenant)
}

/// Waits until the worker of a tenant that was taken out has let go of its directory, and moves or deletes that.
///
/// # Errors
/// The directory cannot be moved or deleted, or is in use.
pub fn put_away(config: &Config, tenant: &Tenant, disposal: Disposal) -> Result<Removed, ChangeError> {
    std::thread::sleep(POOL_NOTICE_TIME);
    let named = layout::tenant_dir(&config.gateway.data_root, tenant);
    // The tenant is out already, so that this is not the refusal of a change.
    let data_root = DataRoot::establish(config, &Registry::default())
        .map_err(|loss| ChangeError::Directory(named.clone(), io::Error::other(loss)))?;
    let removed = dispose(config, tenant, &named, disposal)?;
    if let Err(error) = data_root.forget(&tenant.name) {
        tracing::warn!(tenant = %tenant.name, %error, "the note of a removed tenant stays: the next one of this name needs a directory");
    }
    Ok(removed)
}

fn dispose(
    config: &Config,
    tenant: &Tenant,
    named: &Path,
    disposal: Disposal,
) -> Result<Removed, ChangeError> {
    // What cannot be looked at is not taken for absent: it would be the next tenant's of this name.
    match named.try_exists() {
        Ok(true) => {}
        Ok(false) => return Ok(Removed::WithoutDirectory(layout::resolved(named))),
        Err(error) => return Err(ChangeError::Directory(named.to_owned(), error)),
    }
    let real = layout::resolved(named);
    if !real.is_dir() {
        return Ok(Removed::Left(real, WhyLeft::NotADirectory));
    }
    let directory = open_directory(&real).map_err(|error| ChangeError::Directory(real.clone(), error))?;
    wait_for_worker(&directory, &real)?;
    let why = why_left(&real, config, disposal);
    if let Some(why) = why.map_err(|error| ChangeError::Directory(real.clone(), error))? {
        return Ok(Removed::Left(real, why));
    }
    // Locked, so that nobody adds a tenant with this directory between the question and the move.
    let registry = open(config)?;
    let is_shared = |other: &Tenant| {
        let theirs = layout::resolved(&layout::tenant_dir(&config.gateway.data_root, other));
        theirs.starts_with(&real) || real.starts_with(&theirs)
    };
    if registry.registry().tenants.iter().any(is_shared) {
        return Err(ChangeError::DirectoryTakenAgain(real));
    }
    let moved = archive(&config.gateway.data_root, tenant, &real, &directory);
    // To delete takes as long as there are files; nobody waits for it, and what a stop leaves of it is no tenant's.
    drop(registry);
    let archived = match moved {
        Ok(to) if disposal.purges => {
            purge(&to)?;
            None
        }
        Ok(to) => Some(to),
        // The lock of its worker is still ours: until all of it is gone no other worker opens it.
        Err(error) if is_elsewhere(&error) && disposal.purges => {
            purge(&real)?;
            None
        }
        Err(error) if is_elsewhere(&error) => {
            let archives = layout::archives_dir(&config.gateway.data_root);
            return Ok(Removed::Left(real, WhyLeft::OtherFileSystem(archives)));
        }
        Err(error) => return Err(ChangeError::Directory(real, error)),
    };
    let link = remove_link(named, config, disposal)
        .map_err(|error| ChangeError::Directory(named.to_owned(), error))?;
    Ok(match archived {
        Some(to) => Removed::Archived { from: real, to, link },
        None => Removed::Purged(real, link),
    })
}

/// Why the directory stays where it is; `None` when it may be moved or deleted. An error says that the mount points are
/// not known.
fn why_left(real: &Path, config: &Config, disposal: Disposal) -> io::Result<Option<WhyLeft>> {
    let data_root = layout::resolved(&config.gateway.data_root);
    if !real.starts_with(&data_root) && !disposal.takes_foreign {
        return Ok(Some(WhyLeft::Foreign(data_root)));
    }
    // A link may lead elsewhere since the registry was read.
    if let Some(objection) = directories::unfit(real, config) {
        return Ok(Some(WhyLeft::Unfit(objection)));
    }
    if !real.is_dir() {
        return Ok(Some(WhyLeft::NotADirectory));
    }
    Ok(mounts::first_in(real)?.map(WhyLeft::Mounted))
}

fn is_elsewhere(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::CrossesDevices
}

/// Moves a directory, which is open, into the archive. No link is followed on the last step of either path, and what
/// has taken the directory's place meanwhile is not moved.
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

/// A link that led to a directory that is gone leads nowhere, and would be in the way of the next tenant of its name. One
/// outside the data root is not ours to take.
fn remove_link(named: &Path, config: &Config, disposal: Disposal) -> io::Result<Option<LeftLink>> {
    let Some((folder, name)) = named.parent().zip(named.file_name()) else { return Ok(None) };
    let link = layout::resolved(folder).join(name);
    if !link.is_symlink() {
        return Ok(None);
    }
    if !link.starts_with(layout::resolved(&config.gateway.data_root)) && !disposal.takes_foreign {
        return Ok(Some(LeftLink(link)));
    }
    fs::remove_file(link).map(|()| None)
}

/// Neither a link nor a file; a pipe is not waited for.
fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map(File::from).map_err(Errno::into)
}

/// A worker holds a lock on its directory while it lives.
fn wait_for_worker(lock: &File, directory: &Path) -> Result<(), ChangeError> {
    match lock_within(lock, WORKER_END_TIMEOUT) {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(ChangeError::WorkerStillRuns(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(ChangeError::Directory(directory.to_owned(), error)),
    }
}
