//! A worker's process: how it is started, told, signalled, and seen to end.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use command_fds::{CommandFdExt, FdMapping};

use rustix::process::{Pid, Signal, kill_process};
use sq_shared::telemetry::LogFormat;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};

use super::Event;
use super::desired::Assignment;
use crate::settings::WorkerSettings;

/// Where a worker finds its socket: the first descriptor after standard error, as systemd passes it.
const LISTENER_FD: i32 = 3;

/// A stop and a kill are all the signals that one worker gets.
const SIGNALS_PER_WORKER: usize = 2;

/// Starts workers.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    log_format: &'static str,
    rust_log: Option<OsString>,
}

/// A worker that runs; its end is reported as an [`Event::WorkerEnded`].
pub struct Process {
    /// Its process id.
    pub pid: u32,
    settings: watch::Sender<Vec<u8>>,
    signals: mpsc::Sender<Signal>,
}

impl Launcher {
    /// Workers are this program, and log as it does.
    pub fn new(log_format: LogFormat) -> Self {
        // After an upgrade in place the path may be gone; the kernel's link still leads to the program.
        let program = std::env::current_exe().ok().filter(|path| path.exists());
        Self {
            program: program.unwrap_or_else(|| PathBuf::from("/proc/self/exe")),
            log_format: match log_format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            },
            rust_log: std::env::var_os("RUST_LOG"),
        }
    }

    /// Starts a worker on a slot's socket.
    ///
    /// # Errors
    /// The system has no process, memory or descriptor left for it, or the program is gone.
    pub fn start(
        &self,
        port: u16,
        listener: OwnedFd,
        assignment: &Assignment,
        events: &mpsc::UnboundedSender<Event>,
    ) -> io::Result<Process> {
        let mut child = self.command(listener, assignment)?.spawn()?;
        let (Some(pid), Some(stdin)) = (child.id(), child.stdin.take()) else {
            return Err(io::Error::other("the worker has no process id or standard input"));
        };
        let (settings, lines) = watch::channel(line_of(&assignment.settings)?);
        let (signals, orders) = mpsc::channel(SIGNALS_PER_WORKER);
        let events = events.clone();
        tokio::spawn(async move {
            let status = attend(child, stdin, lines, orders).await;
            // The loop that receives ends only with the process.
            let _ = events.send(Event::WorkerEnded(port, status));
        });
        Ok(Process { pid, settings, signals })
    }

    fn command(&self, listener: OwnedFd, assignment: &Assignment) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command.arg("--log-format").arg(self.log_format).arg("serve");
        command.arg("--tenant").arg(assignment.tenant.as_str());
        command.arg("--data-dir").arg(&assignment.data_dir).arg("--settings-from-stdin");
        // The pool's environment may hold secrets of the deployment: none is a worker's business.
        command.env_clear().env("LISTEN_FDS", "1");
        if let Some(rust_log) = &self.rust_log {
            command.env("RUST_LOG", rust_log);
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
    /// Tells the worker its new settings. Of several in quick succession only the last is sure to
    /// arrive.
    ///
    /// # Errors
    /// The settings cannot be written as JSON.
    pub fn tell(&self, settings: &WorkerSettings) -> io::Result<()> {
        self.settings.send_replace(line_of(settings)?);
        Ok(())
    }

    /// Lets the worker finish what it is doing, then end: SIGTERM, and the end of its standard input.
    pub fn stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends the worker now.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // Fails only when the worker has ended already.
        let _ = self.signals.try_send(signal);
    }
}

fn line_of(settings: &WorkerSettings) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(settings)?;
    line.push(b'\n');
    Ok(line)
}

/// Feeds, signals and reaps a worker. All three in one task: a signal can then never reach a process
/// that got the id of a worker that was just reaped.
async fn attend(
    mut child: Child,
    stdin: ChildStdin,
    lines: watch::Receiver<Vec<u8>>,
    mut orders: mpsc::Receiver<Signal>,
) -> io::Result<ExitStatus> {
    let mut feeding = Some(Box::pin(feed(stdin, lines)));
    loop {
        let fed = async {
            match feeding.as_mut() {
                Some(feeding) => feeding.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            status = child.wait() => return status,
            Some(order) = orders.recv() => {
                feeding = None;
                deliver(&child, order);
            }
            () = fed => feeding = None,
        }
    }
}

/// Writes each line, and keeps the pipe open between them; ends when the worker no longer reads.
async fn feed(mut stdin: ChildStdin, mut lines: watch::Receiver<Vec<u8>>) {
    loop {
        let line = lines.borrow_and_update().clone();
        if stdin.write_all(&line).await.is_err() || lines.changed().await.is_err() {
            return;
        }
    }
}

fn deliver(child: &Child, signal: Signal) {
    // Without an id the worker has been reaped.
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, signal)
    {
        tracing::error!(%error, pid = pid.as_raw_nonzero().get(), ?signal, "cannot signal a worker");
    }
}
