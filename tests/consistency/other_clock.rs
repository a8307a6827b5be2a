//! A program in the place of `sq-worker`, which becomes the one called `worker` beside it, with a clock that a test can
//! step: the time of day is ahead of the machine's by the seconds in the file `.clock` of the tenant's directory. A pool
//! starts its workers with an empty environment, and this is where libfaketime comes into it.

use std::convert::Infallible;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// A worker reads it after its directory has become the root of all paths, and once more each time that it asks for the
/// time: a step is seen at once.
const CLOCK: [(&str, &str); 2] = [("FAKETIME_TIMESTAMP_FILE", "/.clock"), ("FAKETIME_NO_CACHE", "1")];

/// Only the time of day is another: no monotonic clock, and no time of a file.
const REAL: [(&str, &str); 2] = [("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("NO_FAKE_STAT", "1")];

fn main() -> ExitCode {
    let Err(error) = become_worker();
    // It is in the pool's log, where a worker's lines are.
    let _ = writeln!(io::stderr(), "failed to start the worker: {error}");
    ExitCode::FAILURE
}

fn become_worker() -> io::Result<Infallible> {
    let program = std::env::current_exe()?;
    let folder = program.parent().unwrap_or(Path::new("/"));
    let mut worker = Command::new(folder.join("worker"));
    worker.arg0("sq-worker").args(std::env::args_os().skip(1));
    worker.env("LD_PRELOAD", folder.join("libfaketime.so.1")).envs(CLOCK).envs(REAL);
    Err(worker.exec())
}
