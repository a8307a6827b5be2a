//! The pool as a child of `up`.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use sq_shared::config_source::ConfigSource;
use sq_shared::process::failure::Failure;
use sq_shared::process::service_manager;
use sq_shared::process::telemetry::LogFormat;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long to wait before a pool that died is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// The pool. It ends when its standard input does, so it never outlives this process.
pub(super) struct PoolChild {
    program: PathBuf,
    source: ConfigSource,
    log_format: LogFormat,
    /// Set before the wait for it: if the wait is given up, `stop` still finds the child.
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// Apart from the child: waiting for a child closes the standard input that it still holds.
    stdin: Option<ChildStdin>,
}

impl PoolChild {
    /// A pool that has not been started.
    pub(super) fn new(source: ConfigSource, log_format: LogFormat) -> Result<Self, Failure> {
        Ok(Self { program: worker_program()?, source, log_format, running: None })
    }

    /// Starts it, and waits until it has every slot's socket.
    pub(super) async fn start(&mut self) -> Result<(), Failure> {
        let mut child = self.command().spawn().map_err(|error| {
            let program = self.program.display();
            Failure::Failed(format!(
                "failed to start {program}: {error}; it belongs beside sq-gateway, or in PATH"
            ))
        })?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        self.running = Some(Running { child, stdin });
        if wait_for_ready(stdout).await {
            return Ok(());
        }
        let status = self.ended().await.map_err(Failure::from_error)?;
        Err(Failure::Failed(format!("the pool did not start ({status}); its message is above")))
    }

    /// Starts the pool again whenever it dies. Its slots answer again then; until then they refuse.
    pub(super) async fn keep_alive(&mut self) {
        loop {
            let status = self.ended().await;
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::error!(status, "the pool died and is started again");
            tokio::time::sleep(RESTART_PAUSE).await;
            while let Err(Failure::Usage(error) | Failure::Failed(error)) = self.start().await {
                tracing::error!(error, "the pool did not start; trying again");
                tokio::time::sleep(RESTART_PAUSE).await;
            }
        }
    }

    /// Closes its standard input, which makes it stop its workers and end, and waits for that.
    pub(super) async fn stop(mut self) {
        if let Some(running) = &mut self.running {
            drop(running.stdin.take());
            if let Err(error) = running.child.wait().await {
                tracing::error!(%error, "failed to wait for the pool's end");
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--log-format", self.log_format.as_str(), "pool", "--until-stdin-closes"]);
        command.arg("--config").arg(&self.source.config);
        if let Some(tenants) = &self.source.overrides.tenants {
            command.arg("--tenants").arg(tenants);
        }
        command.env_remove(service_manager::NOTIFY_SOCKET);
        // A separate process group: Ctrl-C reaches this process alone, which drains before it stops the pool.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        match &mut self.running {
            Some(running) => running.child.wait().await,
            None => std::future::pending().await,
        }
    }
}

/// The pool prints a line once its sockets are bound.
async fn wait_for_ready(stdout: Option<ChildStdout>) -> bool {
    let Some(stdout) = stdout else { return false };
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.starts_with("ready") {
            return true;
        }
    }
    false
}

/// `sq-worker` beside this program, else wherever PATH has it.
fn worker_program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(Failure::from_error)?;
    let beside = own.with_file_name("sq-worker");
    Ok(if beside.exists() { beside } else { PathBuf::from("sq-worker") })
}
