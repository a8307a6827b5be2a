//! Why the registry was not changed. The texts are for the commands; the admin API has its own.

use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use sq_shared::data_root::RootLoss;
use sq_shared::file_error;
use sq_shared::process::failure::Failure;
use sq_shared::registry::edit::EditError;
use sq_shared::tenant::TenantName;

use super::keys_file::KeysOut;
use super::remove::WhyLeft;

/// Why a change was not made, or not completely.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(
        "{} does not exist; create it with `sq-gateway up` or `provision`, or from an old registry with `import`",
        .0.display()
    )]
    NoRegistry(PathBuf),
    /// There is no registry, although the system has had tenants: the registry, and what shows it.
    #[error(
        "{} is missing, but this system has had tenants ({} shows it): mount the disk that holds the registry, or \
         restore your last copy of it. Nothing was created", .0.display(), .1.display()
    )]
    LostRegistry(PathBuf, PathBuf),
    #[error("tenant {0} already exists")]
    Exists(TenantName),
    #[error(
        "cannot add {wanted} tenants: only {free} of the slots {}-{} are free; nothing was written",
        .slots.start(), .slots.end()
    )]
    NoFreeSlot { wanted: usize, free: usize, slots: RangeInclusive<u16> },
    #[error(
        "{} is not empty, and the new tenant could read what is in it; move it away, or give it to the tenant with \
         `sq-gateway tenants add {name} --adopt`",
        .directory.display()
    )]
    UsedDirectory { directory: PathBuf, name: TenantName },
    #[error(
        "failed to read {}: {}; the new tenant could read what is in it, so nothing was changed",
        .0.display(), file_error::text(.0, .1)
    )]
    UnreadableDirectory(PathBuf, io::Error),
    #[error("{0}")]
    DataRoot(RootLoss),
    #[error("failed to create {}: {}", .0.display(), .1)]
    UnusableDirectory(PathBuf, io::Error),
    /// The directories of new tenants could not be created in the data root.
    #[error("failed to create directories in {}: {}", .0.display(), .1)]
    Directories(PathBuf, io::Error),
    #[error("failed to write the keys to {0}: {1}; nothing was changed")]
    KeysOut(KeysOut, io::Error),
    /// The new keys were delivered, but the registry does not accept them.
    #[error("{1}; nothing was changed, and the new keys that went to {0} are not valid")]
    DeadKeys(KeysOut, EditError),
    #[error("failed to generate a key: {0}")]
    NoRandomNumbers(io::Error),
    #[error("name the key to replace with --key: {}", .0.join(", "))]
    WhichKey(Vec<String>),
    /// The key to replace has expired. The new key would inherit that.
    #[error("the key has expired; add a new one with `sq-gateway tenants add-key {0}`")]
    KeyExpired(TenantName),
    /// A time that RFC 3339 cannot express.
    #[error("that is after the year 9999")]
    TooFarAhead,
    /// A directory was to be deleted with its tenant, but would have been left.
    #[error(
        "nothing was changed: {} would not be deleted, because {}{}; without --purge the tenant is removed, and its \
         directory stays", .0.display(), .1, .1.confirmation()
    )]
    WouldNotBePurged(PathBuf, WhyLeft),
    #[error("{0}; a file system may be mounted in the tenant's directory, so nothing was changed")]
    UnknownMounts(io::Error),
    /// The tenant is removed, but its worker did not stop in time.
    #[error("the tenant was removed, but its worker is still running; {} was left as it is", .0.display())]
    WorkerStillRuns(PathBuf),
    /// The tenant is removed, but its directory has been given to a tenant in the meantime.
    #[error("the tenant was removed, but {} belongs to a tenant again; it was left as it is", .0.display())]
    DirectoryTakenAgain(PathBuf),
    #[error("the tenant was removed, but not all of {} could be deleted: {}", .0.display(), file_error::text(.0, .1))]
    NotPurged(PathBuf, io::Error),
    #[error("the tenant was removed, but {} was left as it is: {}", .0.display(), file_error::text(.0, .1))]
    Directory(PathBuf, io::Error),
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::WhichKey(_) | ChangeError::TooFarAhead => Self::Usage(error.to_string()),
            error => Self::from_error(error),
        }
    }
}
