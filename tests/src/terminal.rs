//! A terminal in which a test runs a program, and which it can close.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::process::{contents, kill_and_reap};
use crate::{binaries, notice, wait};

/// A terminal, provided by util-linux's `script`. Dropping it closes it.
#[derive(Debug)]
pub struct Terminal {
    script: Child,
    shown: File,
}

impl Terminal {
    /// Whether this machine can provide one; otherwise prints a notice.
    pub fn is_there(what: &str) -> bool {
        let is_there = binaries::on_path("script").is_some();
        if !is_there {
            notice::skip(&format!("{what}: script is missing; apt-get install bsdutils"));
        }
        is_there
    }

    /// Runs a shell command in a folder; the shell is the session's leader.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn run(folder: &Path, line: &str, environment: &[(&str, &str)]) -> Self {
        let shown = tempfile::tempfile().expect("a file for what it shows");
        // Under nohup, the tests ignore the signal of a closed terminal, and programs inherit that.
        let mut command = Command::new("env");
        command.args(["--default-signal=HUP", "script", "-qefc", line, "/dev/null"]).current_dir(folder);
        for cleared in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI", "RUST_LOG"] {
            command.env_remove(cleared);
        }
        command.env("SHELL", "/bin/sh").env("TERM", "xterm").envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(shown.try_clone().expect("its handle")).stderr(Stdio::null());
        let script = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { script, shown }
    }

    /// Its content.
    pub fn shown(&mut self) -> String {
        contents(&mut self.shown)
    }

    /// Waits until the program in it exits.
    pub fn ended(&mut self) -> ExitStatus {
        wait::until_some("the end of what runs in the terminal", || {
            self.script.try_wait().expect("a child of ours")
        })
    }

    /// Closes it: the kernel signals the session's leader.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        kill_and_reap(&mut self.script);
    }
}
