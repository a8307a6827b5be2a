//! Another time of day for one process, by libfaketime.

use std::path::PathBuf;
use std::process::Command;

use crate::notice;

/// The library, where the machine has it; says so otherwise.
pub fn library(what: &str) -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found =
        folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path| path.is_file());
    if found.is_none() {
        notice::skip(&format!("{what}: libfaketime is missing; apt-get install faketime"));
    }
    found
}

/// Gives a command another time of day: an offset such as `-365d`, or a time such as `@1970-01-01 00:00:10`.
pub fn set(command: &mut Command, library: &PathBuf, time: &str) {
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME", time)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("TZ", "UTC");
}
