//! Starts the new process of an upgrade from the running one, inside what a service manager has put around the service, so
//! that the service manager can be told to follow it.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::Access;

/// The option with which a server replaces the running one.
const UPGRADE: &str = "--upgrade";

/// util-linux's program that starts another and exits. What it starts becomes the service manager's own child, as it must:
/// systemd 252, told of a main process that was another's child at that moment, does not wait for it at a stop.
const LAUNCHER: [&str; 2] = ["setsid", "--fork"];

/// Starts the program that this process was started as, from its file as it is now, with the same arguments and
/// `--upgrade`. It logs where this process does; whether it starts well is seen when it waits for the sockets. Gives whether
/// its file can be run, and logs why not.
pub fn launch() -> bool {
    let started = start();
    match &started {
        Ok(()) => tracing::info!("SIGUSR2: the new process is being started"),
        Err(error) => tracing::error!(%error, "SIGUSR2: failed to start the new process; serving on"),
    }
    started.is_ok()
}

fn start() -> io::Result<()> {
    let [launcher, option] = LAUNCHER;
    let mut arguments = std::env::args_os().filter(|argument| argument != OsStr::new(UPGRADE));
    let program = arguments.next().ok_or(io::ErrorKind::NotFound)?;
    // A name without a folder is searched for in PATH.
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
