//! A `.phext` file may be a symbolic link: with it the operator gives a phext a second name, or keeps it in a folder. It is
//! followed to another `.phext` file within the tenant's directory. Requests for either name use the phext's own name, so
//! there is one journal, beside the file.

use sq_shared::phext_name::PhextName;

use crate::store::damage::Damage;
use crate::store::disk::{Disk, FileName};
use crate::store::recovery::RecoveryError;

/// Why a link is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLink {
    /// Out of the tenant's directory.
    #[error("leads out of the tenant's directory: only one that stays in it is followed")]
    Outside,
    /// To a folder, to itself, or to a file that is not named as a phext's.
    #[error("does not lead to a .phext file")]
    NoPhext,
    /// To a missing file in a folder. The folder's disk may be missing, so the phext is not taken for an empty one.
    #[error("leads into a folder where there is no such .phext file")]
    Missing,
    /// Into a folder on which something is mounted. The same files could be reached by another path, and the space of that
    /// disk is not checked.
    #[error("leads into a folder on which another disk is mounted")]
    Mounted,
    /// There is a journal with the name of the link, or of one that it leads to. It belongs to the file that the link has
    /// replaced.
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
    /// To this phext. It may not exist, unless it is in a folder.
    To(PhextName),
    /// It must not be followed.
    Refused(BadLink),
}

/// The phext that the link of this name leads to; `None` when there is no link.
pub(super) fn resolve_link(disk: &dyn Disk, name: &PhextName) -> Result<Option<PhextName>, RecoveryError> {
    let file = disk.identity(&FileName::Phext(name.clone()))?;
    if file.is_none_or(|file| file.is_file) {
        return Ok(None);
    }
    match disk.follow(name)? {
        Followed::NoLink => Ok(None),
        Followed::Refused(why) => Err(Damage::Link(why).into()),
        Followed::To(target) => Ok(Some(target)),
    }
}
