//! What a worker was given open, and does not need, is closed: no wall stops the use of a file that is open.

use std::os::fd::RawFd;

use super::{SandboxError, step};

/// The first descriptor after standard input, output and error; a socket that is passed on comes here.
const FIRST: RawFd = 3;

/// Closes every descriptor but standard input, output and error, and the socket after them if one was passed on.
/// Nothing may have been opened before.
///
/// # Errors
/// The system does not say which are open.
pub fn close_inherited(has_socket: bool) -> Result<(), SandboxError> {
    let first = FIRST + RawFd::from(has_socket);
    let listing = std::fs::read_dir("/proc/self/fd").map_err(step("list the open descriptors in /proc"))?;
    let numbers = listing.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    let inherited: Vec<RawFd> = numbers.filter(|number| *number >= first).collect();
    for number in inherited {
        // One of them was the listing itself, which is closed by now.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}
