//! Why the store did not do what it was asked for.

use std::io;

use crate::store::damage::Damage;
use crate::store::recovery::RecoveryError;

/// Why an operation failed. What was acknowledged still stands. A write that failed is not on disk, unless
/// the system refused a sync or a rename: then it may be, and every later operation is
/// [`StoreError::InDoubt`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The files of the phext cannot be understood, so it is neither read nor overwritten.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The write would take more than the tenant may use.
    #[error("{used} of {quota} bytes are used, and the write needs more than is left")]
    QuotaExceeded {
        /// Bytes of all phexts now.
        used: u64,
        /// The limit.
        quota: u64,
    },
    /// The write would make one more phext than the tenant may have.
    #[error("the tenant has {phexts} phexts, and may have {limit}")]
    TooManyPhexts {
        /// How many there are.
        phexts: usize,
        /// The limit.
        limit: usize,
        /// What all of them cost, in bytes.
        used: u64,
        /// The limit of that, if there is one.
        quota: Option<u64>,
    },
    /// The disk has no room.
    #[error("the disk is full")]
    DiskFull {
        /// Bytes of all phexts now.
        used: u64,
        /// The limit, if there is one.
        quota: Option<u64>,
    },
    /// The file system can only be read, or a file of the phext.
    #[error("the disk can only be read")]
    Unwritable,
    /// A temporary file of the phext is in the way, and is not a plain file.
    #[error("a temporary file is in the way")]
    Blocked,
    /// The scroll would be a new one, farther away than new ones may be.
    #[error("a new scroll's coordinate has parts of at most {limit}")]
    TooFar {
        /// The largest part that one may have.
        limit: u32,
    },
    /// The scroll is not what the write expects.
    #[error("the scroll has changed")]
    NotAsExpected,
    /// The key has come before, with another request.
    #[error("the key was used for another write")]
    KeyReused,
    /// The text is longer than a record of the journal can be.
    #[error("a text of {bytes} bytes is too long")]
    TextTooLong {
        /// What it has.
        bytes: usize,
    },
    /// A job must end first: what is asked for must be read, or something saved, for memory or for room on the disk, or
    /// another program has changed the file. Ask again after the next call of [`Store::finish`].
    #[error("something must be read or saved first")]
    NotYet,
    /// A sync or a rename failed before: only a new start can tell what is on disk.
    #[error("the disk failed while it was written to, and what it holds is in doubt")]
    InDoubt,
    /// Anything else that the system says.
    #[error("the data directory cannot be used: {0}")]
    Io(#[from] io::Error),
}

impl From<RecoveryError> for StoreError {
    fn from(error: RecoveryError) -> Self {
        match error {
            RecoveryError::Damaged(damage) => Self::Damaged(damage),
            RecoveryError::Io(error) => Self::Io(error),
        }
    }
}
