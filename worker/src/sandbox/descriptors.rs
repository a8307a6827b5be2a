//! Closes inherited descriptors that a worker does not need, because no wall stops the use of an open file.

use std::os::fd::RawFd;

use super::{SandboxError, step};

/// The first descriptor after standard input, output and error: the inherited socket, if there is one.
const FIRST: RawFd = 3;

/// Closes every descriptor but standard input, output and error, and the inherited socket. Call it before anything is
/// opened.
///
/// # Errors
/// Failed to list the open descriptors.
pub fn close_inherited(has_socket: bool) -> Result<(), SandboxError> {
    let first = FIRST + RawFd::from(has_socket);
    let listing = std::fs::read_dir("/proc/self/fd").map_err(step("list the open descriptors in /proc"))?;
    let numbers = listing.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    let inherited: Vec<RawFd> = numbers.filter(|number| *number >= first).collect();
    for number in inherited {
        // Fails for the listing's own descriptor, which is closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}
