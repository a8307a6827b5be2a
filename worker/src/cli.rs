//! The command line of `sq-worker`.

use clap::{Parser, Subcommand};
use sq_shared::process::telemetry::LogFormat;

use crate::commands::{fsck, healthcheck, pool, sandbox, serve};

/// Serves one tenant's phexts, or runs the pool of all tenants' workers.
#[derive(Debug, Parser)]
#[command(
    name = "sq-worker",
    version,
    after_help = "Example:\n  sq-worker pool --config /etc/sq/gateway.toml"
)]
pub struct Cli {
    /// The format of log lines.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `sq-worker`.
#[derive(Debug, Subcommand)]
pub enum Command {
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
