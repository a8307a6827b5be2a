//! A lock on a file that is waited for, but not for ever: flock(2) has no time-out.

use std::fs::{File, TryLockError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often one who waits looks again.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Takes the lock, which nobody else can have until it is given back or the file is closed. Blocks.
///
/// # Errors
/// `WouldBlock` when somebody else had it all the time; or what it is cannot be locked, such as a pipe.
pub fn lock_within(file: &File, patience: Duration) -> Result<(), TryLockError> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if began.elapsed() < patience => sleep(LOOK_INTERVAL),
            ended => return ended,
        }
    }
}
