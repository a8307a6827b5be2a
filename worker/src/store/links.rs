//! A `.phext` file that is a symbolic link: the operator gives a phext a second name. It is followed to another `.phext` file of
//! the same directory, and the phext is read and written under its own name: two names of one file have one journal.

use sq_shared::phext_name::PhextName;

use crate::store::damage::Damage;
use crate::store::disk::{Disk, FileName};
use crate::store::recovery::RecoveryError;

/// Why a link is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLink {
    /// To another directory.
    #[error("leads out of the tenant's directory: only one that stays in it is followed")]
    Outside,
    /// To a folder, which may be a disk that is not there; to what is not named as the file of a phext; or to itself.
    #[error("does not lead to a .phext file of the same directory")]
    NoPhext,
    /// A journal of this name belongs to the file that the link has replaced.
    #[error(
        "stands beside a .journal of the same name, which may have writes for the file that was there: put that file back"
    )]
    BesideJournal,
}

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Followed {
    /// There is no link.
    NoLink,
    /// To this phext, which may not exist.
    To(PhextName),
    /// It is not to be followed.
    Refused(BadLink),
}

/// The phext that a link of this name leads to; `None` when there is no link.
pub(super) fn linked(disk: &dyn Disk, name: &PhextName) -> Result<Option<PhextName>, RecoveryError> {
    let file = disk.identity(&FileName::Phext(name.clone()))?;
    if file.is_none_or(|file| file.is_file) {
        return Ok(None);
    }
    match disk.follow(name)? {
        Followed::NoLink => Ok(None),
        Followed::Refused(why) => Err(Damage::Link(why).into()),
        Followed::To(target) => {
            let journal = disk.identity(&FileName::Journal(name.clone()))?;
            if journal.is_some() {
                Err(Damage::Link(BadLink::BesideJournal).into())
            } else {
                Ok(Some(target))
            }
        }
    }
}
