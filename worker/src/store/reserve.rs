//! Room on the disk that is kept for the moment when there is no other: a delete needs a record in the
//! journal, and a save a new file, before either gives room back.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::disk::{Disk, FileName};

/// Enough for some thousand deletes, or for the save of a small phext.
const RESERVE_BYTES: u64 = 256 * 1024;

/// The room. Only jobs take it and give it up, for both may have to wait for the disk.
#[derive(Debug, Default)]
pub(super) struct Reserve(Mutex<ReserveState>);

/// Whether the room is there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ReserveState {
    /// It has not been looked for yet.
    #[default]
    Unknown,
    Held,
    Gone,
    /// This file system promises no room.
    Unavailable,
}

impl Reserve {
    /// Takes the room if it is not there. That there is none to take is no error: then there is no reserve.
    pub(super) fn hold(&self, disk: &dyn Disk) {
        let mut state = self.state();
        if matches!(*state, ReserveState::Held | ReserveState::Unavailable) {
            return;
        }
        match take(disk) {
            Ok(()) => *state = ReserveState::Held,
            Err(error) => {
                // Better none than a part that is taken for the whole.
                let _ = disk.remove(&FileName::Reserve);
                *state = if is_unsupported(&error) { ReserveState::Unavailable } else { ReserveState::Gone };
            }
        }
    }

    /// Does work that needs room, once more with the reserve given up when there was no room for it.
    pub(super) fn with_space<T, E>(
        &self,
        disk: &dyn Disk,
        is_without_space: impl Fn(&E) -> bool,
        mut work: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        match work() {
            Err(error) if is_without_space(&error) && self.release(disk) => work(),
            result => result,
        }
    }

    /// Gives the room up; whether there was any.
    fn release(&self, disk: &dyn Disk) -> bool {
        let mut state = self.state();
        if *state != ReserveState::Held {
            return false;
        }
        *state = ReserveState::Gone;
        disk.remove(&FileName::Reserve).is_ok()
    }

    fn state(&self) -> MutexGuard<'_, ReserveState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this file system cannot take room before there is something in it.
fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

fn take(disk: &dyn Disk) -> io::Result<()> {
    let is_there = matches!(
        disk.identity(&FileName::Reserve),
        Ok(Some(identity)) if identity.is_file && identity.bytes == RESERVE_BYTES
    );
    if is_there {
        return Ok(());
    }
    // What a delete has just freed is for writes, not for this.
    if disk.free_bytes()? < 2 * RESERVE_BYTES {
        return Err(io::ErrorKind::StorageFull.into());
    }
    disk.create(&FileName::Reserve)?.allocate(RESERVE_BYTES)
}
