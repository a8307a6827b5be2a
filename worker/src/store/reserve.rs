//! Space that is kept for a full disk: a delete needs a record in the journal, and a save a new file, before either frees
//! space.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::disk::{Disk, FileName};

/// Enough for some thousand deletes, or for the save of a small phext.
const RESERVE_BYTES: u64 = 256 * 1024;

/// A file that holds the space. Only jobs take it and release it, because both may wait for the disk.
#[derive(Debug, Default)]
pub(super) struct Reserve(Mutex<ReserveState>);

/// Whether the space is held.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ReserveState {
    /// It has not been checked yet.
    #[default]
    Unknown,
    Held,
    Gone,
    /// The file system cannot allocate space in advance.
    Unavailable,
}

impl Reserve {
    /// Takes the space if it is not held. If there is none to take, there is no reserve; that is not an error.
    pub(super) fn hold(&self, disk: &dyn Disk) {
        let mut state = self.state();
        if matches!(*state, ReserveState::Held | ReserveState::Unavailable) {
            return;
        }
        match take(disk) {
            Ok(()) => *state = ReserveState::Held,
            Err(error) => {
                // A part must not be taken for the whole.
                let _ = disk.remove(&FileName::Reserve);
                *state = match error.kind() {
                    io::ErrorKind::Unsupported => ReserveState::Unavailable,
                    _ => ReserveState::Gone,
                };
            }
        }
    }

    /// Does work that needs space. If there is none, releases the reserve and tries once more.
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

    /// Gives whether there was a reserve to release.
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

fn take(disk: &dyn Disk) -> io::Result<()> {
    let is_there = matches!(
        disk.identity(&FileName::Reserve),
        Ok(Some(identity)) if identity.is_file && identity.bytes == RESERVE_BYTES
    );
    if is_there {
        return Ok(());
    }
    // Space that a delete has just freed is for writes.
    if disk.free_bytes()? < 2 * RESERVE_BYTES {
        return Err(io::ErrorKind::StorageFull.into());
    }
    disk.create(&FileName::Reserve)?.allocate(RESERVE_BYTES)
}
