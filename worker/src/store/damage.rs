//! What is wrong with a phext's files that no second try will mend.

use crate::store::journal::JournalDamage;
use crate::store::links::BadLink;
use crate::store::phext::TextDamage;

/// Why a phext is neither read nor written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Its file cannot be understood.
    #[error("the phext's .phext file is damaged: {0}")]
    Text(#[from] TextDamage),
    /// Its file is a link that is not followed.
    #[error("the phext's .phext file is a link that {0}")]
    Link(BadLink),
    /// Its file is larger than all that the tenant may use, and the store did not write it.
    #[error(
        "the phext's .phext file has {bytes} bytes, more than the quota of {quota}: raise the quota, or make the file shorter"
    )]
    LargerThanQuota {
        /// What it has.
        bytes: u64,
        /// What the tenant may use.
        quota: u64,
    },
    /// What is about to replace one of its files is not a plain file, and cannot be written.
    #[error("the phext's {suffix}.tmp is not a plain file, and is in the way: remove it")]
    InTheWay {
        /// Which of the two.
        suffix: &'static str,
    },
    /// Its journal cannot be understood.
    #[error("the phext's .journal file is damaged: {0}")]
    Journal(#[from] JournalDamage),
    /// The keys of all phexts cannot be understood, so no phext is written.
    #[error("the tenant's .keys file is damaged: {0}")]
    Keys(JournalDamage),
}
