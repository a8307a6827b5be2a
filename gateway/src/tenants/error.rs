//! Why the registry was not changed. The texts are those of the commands; the admin API has its own.

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

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The registry cannot be changed so.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// There is no registry yet.
    #[error(
        "{} is not there; `sq-gateway up` or `provision` makes one, and `import` makes one of an old registry",
        .0.display()
    )]
    NoRegistry(PathBuf),
    /// The name is taken.
    #[error("there is a tenant {0} already")]
    Exists(TenantName),
    /// More tenants than slots.
    #[error(
        "{wanted} tenants are to be added, but of the slots {}-{} only {free} are free; nothing was written",
        .slots.start(), .slots.end()
    )]
    NoFreeSlot {
        /// How many are to be added.
        wanted: usize,
        /// How many slots are free.
        free: usize,
        /// Those that there are.
        slots: RangeInclusive<u16>,
    },
    /// The directory of a new tenant holds something.
    #[error(
        "{} is not empty, and would be the new tenant's to read; move it away, or give it to the tenant with \
         `sq-gateway tenants add {name} --adopt`",
        .directory.display()
    )]
    UsedDirectory {
        /// The directory.
        directory: PathBuf,
        /// Who would get it.
        name: TenantName,
    },
    /// Whether the directory of a new tenant holds something cannot be seen.
    #[error(
        "cannot read {}: {}; what it may hold would be the new tenant's to read, and nothing was changed",
        .0.display(), file_error::text(.0, .1)
    )]
    UnreadableDirectory(PathBuf, io::Error),
    /// The data root is not there, and nothing is made in its place.
    #[error("{0}")]
    DataRoot(RootLoss),
    /// A directory that was gone cannot be made, or not be looked at.
    #[error("cannot make {}: {}", .0.display(), .1)]
    UnusableDirectory(PathBuf, io::Error),
    /// Directories in the data root cannot be made.
    #[error("cannot make directories in {}: {}", .0.display(), .1)]
    Directories(PathBuf, io::Error),
    /// The new keys cannot be written where they are to go.
    #[error("cannot write the keys to {0}: {1}; nothing was changed")]
    KeysOut(KeysOut, io::Error),
    /// The new keys are handed over, and the registry does not take them.
    #[error("{1}; nothing was changed, and the new keys that went to {0} are not valid")]
    DeadKeys(KeysOut, EditError),
    /// There is no registry, though there has been one.
    #[error(
        "{} is not there, but this system has had tenants ({}): is the disk with the registry mounted? Else put your last \
         copy there. Nothing was made", .0.display(), .1.display()
    )]
    LostRegistry(PathBuf, PathBuf),
    /// The operating system has no random numbers to give.
    #[error("cannot make a key: {0}")]
    NoRandomNumbers(io::Error),
    /// Several keys are valid, and it was not said which one to replace.
    #[error("name the key to replace with --key: {}", .0.join(", "))]
    WhichKey(Vec<String>),
    /// A key that follows on an expired one would have expired too.
    #[error("the key has expired; give a new one with `sq-gateway tenants add-key {0}`")]
    KeyExpired(TenantName),
    /// A time that no clock shows.
    #[error("that is after the year 9999")]
    TooFarAhead,
    /// The tenant is out of the registry, and its directory in use.
    #[error(
        "the tenant is out of the registry, but its worker still runs; {} was left as it is",
        .0.display()
    )]
    WorkerStillRuns(PathBuf),
    /// Somebody gave the directory to a tenant again meanwhile.
    #[error("the tenant was removed, but {} is a tenant's again; it was left as it is", .0.display())]
    DirectoryTakenAgain(PathBuf),
    /// The directory of a tenant is to be deleted with it, and would not be.
    #[error(
        "nothing was changed: {} would not be deleted, because {}{}; without --purge the tenant is removed, and its \
         directory stays", .0.display(), .1, .1.confirmation()
    )]
    WouldNotBePurged(PathBuf, WhyLeft),
    /// A tenant is to be removed, and what is mounted in its directory is not known.
    #[error("{0}; a file system may be mounted in the tenant's directory, and nothing was changed")]
    UnknownMounts(io::Error),
    /// The directory of a removed tenant is deleted in part.
    #[error("the tenant is out of the registry, but not all of {} could be deleted: {}", .0.display(), file_error::text(.0, .1))]
    NotPurged(PathBuf, io::Error),
    /// The directory of a removed tenant can be neither moved nor deleted.
    #[error("the tenant is out of the registry, but {} was left as it is: {}", .0.display(), file_error::text(.0, .1))]
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
