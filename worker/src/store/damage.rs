//! Damage of a phext's files, which no retry repairs.

use crate::store::journal::JournalDamage;
use crate::store::links::BadLink;
use crate::store::phext::TextDamage;

/// Why a phext is neither read nor written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the variants are")]
pub enum Damage {
    #[error("the phext's .phext file is damaged: {0}")]
    Text(#[from] TextDamage),
    #[error("the phext's .phext file is a link that {0}")]
    Link(BadLink),
    /// Its file is larger than the quota, and the store did not write it.
    #[error(
        "the phext's .phext file has {bytes} bytes, more than the quota of {quota}: raise the quota, or make the file shorter"
    )]
    LargerThanQuota { bytes: u64, quota: u64 },
    #[error("the phext's {suffix}.tmp is not a plain file, and is in the way: remove it")]
    InTheWay { suffix: &'static str },
    #[error("the phext's .journal file is damaged: {0}")]
    Journal(#[from] JournalDamage),
    /// The idempotency keys are damaged, so no phext is written.
    #[error("the tenant's .keys file is damaged: {0}")]
    Keys(JournalDamage),
}
