//! Another time of day for one process, by libfaketime.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::notice;

/// Where libfaketime keeps what processes share, in files that it names after a process.
const SHARED_MEMORY: &str = "/dev/shm";

/// The library. Dropping it removes the files that it leaves when a process is killed.
#[derive(Debug)]
pub struct Library(PathBuf);

/// The library, where the machine has it; says so otherwise.
pub fn library(what: &str) -> Option<Library> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found =
        folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path| path.is_file());
    if found.is_none() {
        notice::skip(&format!("{what}: libfaketime is missing; apt-get install faketime"));
    }
    found.map(Library)
}

impl Library {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Gives a command another time of day: an offset such as `-365d`, or a time such as `@1970-01-01 00:00:10`.
    pub fn set(&self, command: &mut Command, time: &str) {
        command
            .env("LD_PRELOAD", &self.0)
            .env("FAKETIME", time)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("TZ", "UTC");
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        for file in fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let pid =
                ["faketime_shm_", "sem.faketime_sem_"].iter().find_map(|prefix| name.strip_prefix(prefix));
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                // Another test may have removed it.
                let _ = fs::remove_file(file.path());
            }
        }
    }
}
