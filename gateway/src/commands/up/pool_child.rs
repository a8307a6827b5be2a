//! The pool as a child of `up`.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use sq_shared::failure::Failure;
use sq_shared::telemetry::LogFormat;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::directory::reload::Source;

/// How long to wait before a pool that died is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// A running pool. It ends when its standard input does, so it never outlives this process.
pub(super) struct PoolChild {
    child: Child,
    /// Kept apart from the child: to wait for a child closes the standard input that it still has.
    stdin: Option<ChildStdin>,
}

impl PoolChild {
    /// Starts the pool and waits until it has every slot's socket.
    pub(super) async fn start(source: &Source, log_format: LogFormat) -> Result<Self, Failure> {
        let program = worker_program()?;
        let mut command = Command::new(&program);
        command.arg("--log-format").arg(match log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        });
        command.arg("pool").arg("--config").arg(&source.config).arg("--until-stdin-closes");
        if let Some(tenants) = &source.tenants {
            command.arg("--tenants").arg(tenants);
        }
        // A group of its own: Ctrl-C reaches this process alone, which drains before it stops the pool.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| Failure::Failed(format!("cannot start {}: {error}", program.display())))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        if wait_for_ready(stdout).await {
            return Ok(Self { child, stdin });
        }
        let status = child.wait().await.map_err(Failure::from_error)?;
        Err(Failure::Failed(format!("the pool did not start ({status}); its message is above")))
    }

    /// Starts the pool again whenever it dies. Its slots answer again then; until then they refuse.
    pub(super) async fn keep_alive(&mut self, source: &Source, log_format: LogFormat) {
        loop {
            let status = self.child.wait().await;
            tracing::error!(?status, "the pool died and is started again");
            loop {
                tokio::time::sleep(RESTART_PAUSE).await;
                match Self::start(source, log_format).await {
                    Ok(started) => break *self = started,
                    Err(Failure::Usage(error) | Failure::Failed(error)) => {
                        tracing::error!(error, "the pool did not start; trying again");
                    }
                }
            }
        }
    }

    /// Closes its standard input, which makes it stop its workers and end, and waits for that.
    pub(super) async fn stop(mut self) {
        drop(self.stdin.take());
        if let Err(error) = self.child.wait().await {
            tracing::error!(%error, "cannot wait for the pool's end");
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
