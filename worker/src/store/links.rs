//! A `.phext` file that is a symbolic link: the operator gives a phext a second name, or keeps it in a folder. It is followed
//! to another `.phext` file within the tenant's directory, and the phext is read and written under its own name: two names of
//! one file have one journal, beside that file.

use sq_shared::phext_name::PhextName;

use crate::store::damage::Damage;
use crate::store::disk::{Disk, FileName};
use crate::store::recovery::RecoveryError;

/// Why a link is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLink {
    /// Of the tenant's directory.
    #[error("leads out of the tenant's directory: only one that stays in it is followed")]
    Outside,
    /// To a folder, to what is not named as the file of a phext, or to itself.
    #[error("does not lead to a .phext file")]
    NoPhext,
    /// To a file in a folder that has no such file. The folder may be a disk that is not there, so the phext is not taken for
    /// an empty one.
    #[error("leads into a folder where there is no such .phext file")]
    Missing,
    /// Into a folder on which something is mounted. By another path the same files could be there again, and a full disk
    /// could not be told from one with room.
    #[error("leads into a folder on which another disk is mounted")]
    Mounted,
    /// A journal has the name of the link, or of one that it leads to: it belongs to the file whose place the link has taken.
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
    /// To this phext, which may not exist, but for one in a folder.
    To(PhextName),
    /// It is not to be followed.
    Refused(BadLink),
}

/// The phext that a link of this name leads to; `None` when there is no link.
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
