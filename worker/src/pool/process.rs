//! A worker's process: how it is started, given settings, signalled and reaped.

use std::convert::Infallible;
use std::ffi::OsString;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use command_fds::{CommandFdExt, FdMapping};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sq_shared::config::Enforcement;
use sq_shared::process::telemetry::{self, LogFormat};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};

use super::Event;
use super::desired::Assignment;
use super::program::Program;
use crate::settings::{MissingData, WorkerSettings};

/// Where a worker finds its socket: the first descriptor after standard error, as systemd passes it.
const LISTENER_FD: i32 = 3;

#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    executable: PathBuf,
    /// Keeps the executable there.
    program: Option<Program>,
    log_format: &'static str,
    rust_log: Option<OsString>,
    /// Workers write to the pool's standard error, where colours are not wanted.
    refuses_colours: bool,
    sandbox: Enforcement,
}

/// How a worker's process ended.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) status: io::Result<ExitStatus>,
    /// A command was applied before; see `server/worker.rs`.
    pub(crate) has_served: bool,
}

/// A worker that runs; its end is reported as an [`Event::WorkerEnded`].
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its process, for signals and for the next pool. Opened before it could be reaped: it is never another process.
    pub(crate) pidfd: OwnedFd,
    /// The line for its standard input; `None` closes that.
    settings: watch::Sender<Option<Vec<u8>>>,
}

impl Launcher {
    /// Workers are this program, and log as the pool does.
    pub(crate) fn new(program: Program, log_format: LogFormat, sandbox: Enforcement) -> Self {
        Self {
            executable: program.executable(),
            program: Some(program),
            log_format: log_format.as_str(),
            rust_log: std::env::var_os("RUST_LOG"),
            refuses_colours: telemetry::is_terminal_without_colours(),
            sandbox,
        }
    }

    pub(crate) fn replace(&mut self, program: Program) {
        self.executable = program.executable();
        self.program = Some(program);
    }

    pub(crate) fn program(&self) -> Option<&Program> {
        self.program.as_ref()
    }

    /// The command that tries what will confine the workers, on the folder that their directories are in: whose it is
    /// matters.
    pub(crate) fn sandbox_trial(&self, data_root: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(&self.executable);
        command.arg("sandbox").env_clear().stdin(Stdio::null());
        if data_root.is_dir() {
            command.arg("--data-dir").arg(data_root);
        }
        command
    }

    #[cfg(test)]
    pub(super) fn with_program(executable: PathBuf) -> Self {
        let (program, rust_log, sandbox) = (None, None, Enforcement::Off);
        Self { executable, program, log_format: "text", rust_log, refuses_colours: false, sandbox }
    }

    /// Starts a worker on a slot's socket; when the tenant has no directory, one that says so.
    pub(crate) fn start(
        &self,
        port: u16,
        listener: OwnedFd,
        assignment: &Assignment,
        absence: Option<MissingData>,
        events: &mpsc::UnboundedSender<Event>,
    ) -> io::Result<Process> {
        let settings = line_of(&assignment.settings)?;
        let (served, stdout) = io::pipe()?;
        let served = pipe::Receiver::from_owned_fd(served.into())?;
        let mut command = self.command(listener, assignment, absence)?;
        let mut child = command.stdout(stdout).spawn()?;
        // The writing end is the worker's alone.
        drop(command);
        // A worker that cannot be watched would hold the directory against the next one.
        let (pid, stdin, pidfd) = attach(&mut child).inspect_err(|_| _ = child.start_kill())?;
        let (settings, lines) = watch::channel(Some(settings));
        let events = events.clone();
        tokio::spawn(feed(stdin, lines));
        tokio::spawn(async move {
            let status = tokio::select! {
                status = child.wait() => status,
                never = report_served(port, &served, &events) => match never {},
            };
            let exit = Exit { status, has_served: has_bytes(&served) };
            // The loop that receives ends only with the process.
            let _ = events.send(Event::WorkerEnded(port, exit));
        });
        Ok(Process { pid, pidfd, settings })
    }

    fn command(
        &self,
        listener: OwnedFd,
        assignment: &Assignment,
        absence: Option<MissingData>,
    ) -> io::Result<Command> {
        let mut command = Command::new(&self.executable);
        command.arg0("sq-worker").arg("--log-format").arg(self.log_format).arg("serve");
        command.arg("--tenant").arg(assignment.tenant.as_str());
        command.arg("--data-dir").arg(&assignment.data_dir).arg("--settings-from-stdin");
        command.arg("--sandbox").arg(self.sandbox.as_str());
        if let Some(absence) = absence {
            command.arg("--stand-in").arg(absence.as_str());
        }
        // The pool's environment may hold secrets of the deployment: none is a worker's business.
        command.env_clear().env("LISTEN_FDS", "1");
        if let Some(rust_log) = &self.rust_log {
            command.env("RUST_LOG", rust_log);
        }
        if self.refuses_colours {
            command.env(telemetry::NO_COLOR, "1");
        }
        command.stdin(Stdio::piped());
        // Ctrl-C at a terminal is for the pool: it stops the workers in order.
        command.process_group(0);
        let mapping = FdMapping { parent_fd: listener, child_fd: LISTENER_FD };
        command.fd_mappings(vec![mapping]).map_err(io::Error::other)?;
        Ok(command)
    }
}

impl Process {
    /// Sends the worker its new settings. Of several in quick succession only the last is sure to arrive.
    pub(crate) fn send_settings(&self, settings: &WorkerSettings) -> io::Result<()> {
        let line = line_of(settings)?;
        // A worker that was told to stop gets no more.
        self.settings.send_if_modified(|known| known.as_mut().map(|known| *known = line).is_some());
        Ok(())
    }

    /// Lets the worker finish its requests, then end: SIGTERM, and the end of its standard input.
    pub(crate) fn stop(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        match pidfd_send_signal(&self.pidfd, signal) {
            // It has ended already.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => {
                let name = if signal == Signal::KILL { "SIGKILL" } else { "SIGTERM" };
                tracing::error!(%error, pid = self.pid, signal = name, "failed to signal a worker");
            }
        }
        // After the signal: one that is killed must not find time to finish because its standard input has ended.
        self.settings.send_replace(None);
    }
}

/// A new worker's process id, its standard input, and a descriptor of its process.
fn attach(child: &mut Child) -> io::Result<(u32, ChildStdin, OwnedFd)> {
    let (Some(pid), Some(stdin)) = (child.id(), child.stdin.take()) else {
        return Err(io::Error::other("the worker has no process id or standard input"));
    };
    let raw_pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok((pid, stdin, pidfd_open(raw_pid, PidfdFlags::empty())?))
}

/// Whether something waits in the pipe; never waits itself.
fn has_bytes(pipe: &pipe::Receiver) -> bool {
    rustix::io::ioctl_fionread(pipe).is_ok_and(|bytes| bytes > 0)
}

/// Reports the byte with which a worker says that it has served, which stays in the pipe; then never ends.
async fn report_served(
    port: u16,
    served: &pipe::Receiver,
    events: &mpsc::UnboundedSender<Event>,
) -> Infallible {
    if served.readable().await.is_ok() && has_bytes(served) {
        // The loop that receives ends only with the process.
        let _ = events.send(Event::WorkerServed(port, Instant::now()));
    }
    pending().await
}

fn line_of(settings: &WorkerSettings) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(settings)?;
    line.push(b'\n');
    Ok(line)
}

/// Writes each line, and keeps the pipe open between them; ends when the worker no longer reads, or is to stop.
async fn feed(mut stdin: ChildStdin, mut lines: watch::Receiver<Option<Vec<u8>>>) {
    loop {
        let Some(line) = lines.borrow_and_update().clone() else { return };
        if stdin.write_all(&line).await.is_err() || lines.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn assignment(data_dir: &Path, quota_bytes: u64) -> Assignment {
        let settings = WorkerSettings {
            keys: Vec::new(),
            quota_bytes: Some(quota_bytes),
            phexts: None,
            coordinate: None,
            memory_bytes: 1,
            body_bytes: None,
            idle_timeout_ms: 1,
            drain_ms: 1,
            directory: None,
        };
        Assignment { tenant: "alice".parse().unwrap(), data_dir: data_dir.to_owned(), settings }
    }

    fn socket() -> OwnedFd {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    async fn wait_for(file: &Path) -> String {
        let written = async {
            loop {
                match std::fs::read_to_string(file) {
                    Ok(text) if text.ends_with('\n') => return text,
                    _ => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), written).await.unwrap()
    }

    /// A worker that writes what it got into its directory: `$7` after the arguments of the pool.
    const SCRIPT: &str = r#"#!/bin/sh
test -S /proc/$$/fd/3 || exit 3
read -r line; echo "$* $LISTEN_FDS $HOME $line" > "$7/first"
read -r line; case "$line" in *'"quota_bytes":2'*) printf . ;; esac
echo "$line" > "$7/second"
while :; do sleep 0.01; done
"#;

    fn start(program: &Path, assignment: &Assignment, events: &mpsc::UnboundedSender<Event>) -> Process {
        loop {
            match Launcher::with_program(program.to_owned()).start(1341, socket(), assignment, None, events) {
                Ok(process) => return process,
                // Another test forked while the script was open for writing.
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ExecutableFileBusy, "{error}"),
            }
        }
    }

    fn worker_script(folder: &Path) -> PathBuf {
        let program = folder.join("worker");
        std::fs::write(&program, SCRIPT).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        program
    }

    #[tokio::test]
    async fn a_worker_gets_its_socket_and_settings_and_its_end_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let program = worker_script(folder.path());
        let (sender, mut events) = mpsc::unbounded_channel();
        let assignment_1 = assignment(folder.path(), 1);
        let process = start(&program, &assignment_1, &sender);

        let line = serde_json::to_string(&assignment_1.settings).unwrap();
        let arguments =
            format!("--log-format text serve --tenant alice --data-dir {}", folder.path().display());
        let first = wait_for(&folder.path().join("first")).await;
        assert_eq!(first, format!("{arguments} --settings-from-stdin --sandbox off 1  {line}\n"));

        process.send_settings(&assignment(folder.path(), 2).settings).unwrap();
        assert!(wait_for(&folder.path().join("second")).await.contains("\"quota_bytes\":2"));

        let heard = events.recv().await;
        assert!(matches!(heard, Some(Event::WorkerServed(1341, _))), "{heard:?}");
        process.stop();
        let Some(Event::WorkerEnded(1341, exit)) = events.recv().await else { panic!("no exit") };
        assert_eq!(exit.status.unwrap().signal(), Some(Signal::TERM.as_raw()));
        assert!(exit.has_served, "it wrote a byte when it got its second settings");
        process.kill();
    }

    #[tokio::test]
    async fn a_worker_that_is_killed_before_it_served_is_told_apart_even_if_its_output_is_still_open() {
        let folder = tempfile::tempdir().unwrap();
        let program = worker_script(folder.path());
        let orphan = SCRIPT.replace("echo \"$line\" > \"$7/second\"", "sleep 20 & echo $! > \"$7/second\"");
        std::fs::write(&program, orphan).unwrap();
        let (sender, mut events) = mpsc::unbounded_channel();
        let process = start(&program, &assignment(folder.path(), 1), &sender);
        wait_for(&folder.path().join("first")).await;
        process.send_settings(&assignment(folder.path(), 3).settings).unwrap();
        let orphan = wait_for(&folder.path().join("second")).await;
        process.kill();
        let Some(Event::WorkerEnded(1341, exit)) = events.recv().await else { panic!("no exit") };
        assert_eq!(exit.status.unwrap().signal(), Some(Signal::KILL.as_raw()));
        assert!(!exit.has_served);
        let orphan = orphan.trim().parse().ok().and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(orphan, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let (sender, _events) = mpsc::unbounded_channel();
        let missing = Launcher::with_program("/nonexistent/sq-worker".into());
        let error =
            missing.start(1341, socket(), &assignment(Path::new("/"), 1), None, &sender).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
