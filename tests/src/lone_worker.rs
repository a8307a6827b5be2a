//! A worker alone on a directory, without gateway and pool, for tests that damage the store.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::Signal;

use crate::client::Client;
use crate::process::{self, Outcome, contents};
use crate::{address, binaries, wait};

/// A running worker that serves all processes on this machine. Dropping it kills it.
#[derive(Debug)]
pub struct LoneWorker {
    child: Child,
    output: File,
    log: File,
    /// A client of it.
    pub client: Client,
}

impl LoneWorker {
    /// The command that serves a directory on a port that the system chooses.
    pub fn command(data_dir: &Path) -> Command {
        let mut command = Command::new(binaries::worker());
        let listen = address::at(Ipv4Addr::LOCALHOST, 0).to_string();
        command.args(["serve", "--no-auth", "--listen", &listen, "--data-dir"]).arg(data_dir);
        ["SQ_KEY", "SQ_PORT", "SQ_TENANT"].into_iter().for_each(|name| _ = command.env_remove(name));
        // A log line per request would be one more write among those that faults are injected into.
        command.env("RUST_LOG", "warn");
        command
    }

    /// Serves a directory.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn start(data_dir: &Path) -> Self {
        Self::spawn(&mut Self::command(data_dir)).unwrap_or_else(|outcome| panic!("{outcome:?}"))
    }

    /// Runs a command that becomes a worker, and waits until it is ready.
    ///
    /// # Errors
    /// It exits before it is ready.
    ///
    /// # Panics
    /// It cannot be started, or neither exits nor becomes ready in time.
    pub fn spawn(command: &mut Command) -> Result<Self, Outcome> {
        let file = || tempfile::tempfile().expect("a file for what it prints");
        let (output, log) = (file(), file());
        let handle = |file: &File| Stdio::from(file.try_clone().expect("its handle"));
        command.stdin(Stdio::null()).stdout(handle(&output)).stderr(handle(&log));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let nowhere = address::at(Ipv4Addr::LOCALHOST, 0);
        let mut worker = Self { child, output, log, client: Client::new(nowhere, None) };
        let started = wait::until_some("the line that says ready", || {
            let ready = worker.ready().map(Ok);
            ready.or_else(|| worker.try_ended().map(Err))
        });
        match started {
            Ok(address) => worker.client = Client::new(address, None),
            Err(status) => {
                let (stdout, stderr) = (contents(&mut worker.output), contents(&mut worker.log));
                return Err(Outcome { status, stdout, stderr });
            }
        }
        Ok(worker)
    }

    /// Reads `ready http://ADDR` with positioned reads, because the worker shares the file offset.
    fn ready(&self) -> Option<SocketAddr> {
        let mut line = [0; 64];
        let length = self.output.read_at(&mut line, 0).ok()?;
        let line = std::str::from_utf8(line.get(..length)?).ok()?;
        line.strip_suffix('\n')?.strip_prefix("ready http://")?.parse().ok()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.child.id(), signal);
    }

    /// Its exit status, if it has exited.
    ///
    /// # Panics
    /// Another caller has waited for it.
    pub fn try_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        wait::until_some("the end of the worker", || self.try_ended())
    }

    /// Kills it.
    pub fn kill(mut self) {
        process::kill_and_reap(&mut self.child);
    }

    /// Stops it as an operator does.
    ///
    /// # Panics
    /// It does not exit with success.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "{status}\n{}", contents(&mut self.log));
    }
}

impl Drop for LoneWorker {
    fn drop(&mut self) {
        process::kill_and_reap(&mut self.child);
    }
}
