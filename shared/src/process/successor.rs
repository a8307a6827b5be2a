//! Asks for the program that is to take the place of this one, inside what a service manager has put around the service, so
//! that the service manager can be told to follow it.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::Access;

/// What a server is started with to take over.
const UPGRADE: &str = "--upgrade";

/// util-linux's program that starts another and ends. What is started is then the service manager's own child, as it must
/// be: systemd 252 does not wait at a stop for a main process that was somebody else's child when it heard of it.
const LAUNCHER: [&str; 2] = ["setsid", "--fork"];

/// Asks for the program that this one was called as, as its file is now, with the same arguments and `--upgrade`. It logs
/// where this one does; whether it gets far is seen when it comes to take over.
///
/// # Errors
/// Its file cannot be run, or there is no `setsid`.
pub fn start() -> io::Result<()> {
    let [launcher, option] = LAUNCHER;
    let mut arguments = std::env::args_os().filter(|argument| argument != OsStr::new(UPGRADE));
    let program = arguments.next().ok_or(io::ErrorKind::NotFound)?;
    // One that was called without a folder is looked for in PATH.
    if Path::new(&program).components().count() > 1 {
        rustix::fs::access(&program, Access::EXEC_OK)
            .map_err(|error| io::Error::other(format!("{}: {error}", Path::new(&program).display())))?;
    }
    let mut command = Command::new(launcher);
    command.arg(option).arg(program).args(arguments).arg(UPGRADE).stdin(Stdio::null());
    let explain = |error| io::Error::other(format!("{launcher} (of util-linux): {error}"));
    let status = command.status().map_err(explain)?;
    if status.success() { Ok(()) } else { Err(explain(io::Error::other(status.to_string()))) }
}
