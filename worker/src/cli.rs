//! The command line of `sq-worker`: parses it, runs the command, and gives the exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sq_shared::process::command_line;
use sq_shared::process::telemetry::{self, LogFormat};

use crate::commands::{fsck, healthcheck, pool, sandbox, serve};

/// Serves one tenant's phexts, or runs the pool of all tenants' workers.
#[derive(Debug, Parser)]
#[command(
    name = "sq-worker",
    version,
    after_help = "Example:\n  sq-worker pool --config /etc/sq/gateway.toml"
)]
pub(crate) struct Cli {
    /// The format of log lines.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// What to run.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve one tenant's directory.
    Serve(serve::Options),
    /// Listen on every slot, and start a tenant's worker when a connection waits.
    Pool(pool::Options),
    /// Verify every phext and journal of a tenant's directory; exit 1 if one is damaged. Changes nothing.
    Fsck(fsck::Options),
    /// Show how a worker would be confined on this machine; exit 1 if not completely.
    Sandbox(sandbox::Options),
    /// Request a URL once; exit 0 on success, 1 otherwise.
    Healthcheck(healthcheck::Options),
}

/// Runs the command of this process's command line.
pub fn main() -> ExitCode {
    let cli = match command_line::parse::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    telemetry::init(cli.log_format);
    let outcome = match cli.command {
        Command::Serve(options) => serve::run(options),
        Command::Pool(options) => pool::run(&options, cli.log_format).map(|()| ExitCode::SUCCESS),
        Command::Fsck(options) => fsck::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Sandbox(options) => sandbox::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Healthcheck(options) => healthcheck::run(&options).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|failure| failure.report("sq-worker"))
}
