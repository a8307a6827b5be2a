//! Damage of a phext's files, which no retry repairs.

use crate::store::journal::JournalDamage;
use crate::store::links::BadLink;
use crate::store::phext::TextDamage;

/// Why a phext is neither read nor written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Its file is not a phext.
    #[error("the phext's .phext file is damaged: {0}")]
    Text(#[from] TextDamage),
    /// Its file is a link that is not followed.
    #[error("the phext's .phext file is a link that {0}")]
    Link(BadLink),
    /// Its file is larger than the quota, and the store did not write it.
    #[error(
        "the phext's .phext file has {bytes} bytes, more than the quota of {quota}: raise the quota, or make the file shorter"
    )]
    LargerThanQuota {
        /// The length of the file.
        bytes: u64,
        /// The quota.
        quota: u64,
    },
    /// The temporary name of one of its files is taken by something that is not a plain file.
    #[error("the phext's {suffix}.tmp is not a plain file, and is in the way: remove it")]
    InTheWay {
        /// Which of the two.
        suffix: &'static str,
    },
    /// Its journal is damaged.
    #[error("the phext's .journal file is damaged: {0}")]
    Journal(#[from] JournalDamage),
    /// The idempotency keys are damaged, so no phext is written.
    #[error("the tenant's .keys file is damaged: {0}")]
    Keys(JournalDamage),
}
