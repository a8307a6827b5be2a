//! Errors of the store's operations.

use std::io;

use crate::store::damage::Damage;
use crate::store::recovery::RecoveryError;

/// Why an operation failed. Acknowledged writes are not affected. A write that failed is not on disk, unless a sync or a
/// rename failed: then it may be, and every later operation is [`StoreError::InDoubt`].
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the variants are")]
pub enum StoreError {
    #[error(transparent)]
    Damaged(#[from] Damage),
    #[error("{used} of {quota} bytes are used, and the write needs more than is left")]
    QuotaExceeded { used: u64, quota: u64 },
    #[error("the tenant has {phexts} phexts, and may have {limit}")]
    TooManyPhexts { phexts: usize, limit: usize, used: u64, quota: Option<u64> },
    #[error("the disk is full")]
    DiskFull { used: u64, quota: Option<u64> },
    /// The file system or a file of the phext is read-only.
    #[error("the disk can only be read")]
    Unwritable,
    /// The name of a temporary file of the phext is taken by something that is not a plain file.
    #[error("a temporary file is in the way")]
    Blocked,
    #[error("a new scroll's coordinate has parts of at most {limit}")]
    TooFar { limit: u32 },
    #[error("the scroll has changed")]
    NotAsExpected,
    #[error("the key was used for another write")]
    KeyReused,
    /// The text is longer than a record of the journal can be.
    #[error("a text of {bytes} bytes is too long")]
    TextTooLong { bytes: usize },
    /// A job must end first: something must be read, or saved to free memory or disk space, or another program has changed
    /// the file. Try again after the next call of [`Store::finish`].
    #[error("something must be read or saved first")]
    NotYet,
    /// A sync or a rename failed: only a new start can tell what is on disk.
    #[error("the disk failed while it was written to, and what it holds is in doubt")]
    InDoubt,
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
