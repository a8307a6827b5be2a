//! Waits for a lock on a file for a limited time: flock(2) has no time-out.

use std::fs::{File, TryLockError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often a waiting process tries again.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// Takes the exclusive lock, which lasts until the file is closed. Blocks.
///
/// # Errors
/// `WouldBlock` when another process held it all the time; or the file cannot be locked, such as a pipe.
pub fn lock_within(file: &File, patience: Duration) -> Result<(), TryLockError> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if began.elapsed() < patience => sleep(RETRY_INTERVAL),
            result => return result,
        }
    }
}
