//! Room on the disk that is kept for the moment when there is no other: a delete needs a record in the
//! journal, and a save a new file, before either gives room back.

use std::io;

use crate::store::disk::{Disk, FileName, is_full};

/// Enough for some thousand deletes, or for the save of a small phext.
const RESERVE_BYTES: u64 = 256 * 1024;

/// Whether the room is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Reserve {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    Held,
    Gone,
    /// This file system promises no room.
    Unavailable,
}

impl Reserve {
    /// Takes the room if it is not there. That there is none to take is no error: then there is no reserve.
    pub(super) fn hold(&mut self, disk: &dyn Disk) {
        if matches!(self, Self::Held | Self::Unavailable) {
            return;
        }
        let is_there = matches!(
            disk.identity(&FileName::Reserve),
            Ok(Some(identity)) if identity.is_file && identity.bytes == RESERVE_BYTES
        );
        let taken = || {
            // What a delete has just freed is for writes, not for this.
            if disk.free_bytes()? < 2 * RESERVE_BYTES {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.create(&FileName::Reserve)?.allocate(RESERVE_BYTES)
        };
        match if is_there { Ok(()) } else { taken() } {
            Ok(()) => *self = Self::Held,
            Err(error) => {
                // Better none than a part that is taken for the whole.
                let _ = disk.remove(&FileName::Reserve);
                *self = if is_full(&error) { Self::Gone } else { Self::Unavailable };
            }
        }
    }

    /// Gives the room up; whether there was any.
    pub(super) fn release(&mut self, disk: &dyn Disk) -> bool {
        if *self != Self::Held {
            return false;
        }
        *self = Self::Gone;
        disk.remove(&FileName::Reserve).is_ok()
    }
}
