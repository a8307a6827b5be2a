//! The command line of `sq-worker`.

use clap::{Parser, Subcommand};
use sq_shared::process::telemetry::LogFormat;

use crate::commands::{fsck, healthcheck, pool, sandbox, serve};

/// Serves one tenant's phexts, or keeps a pool of such workers.
#[derive(Debug, Parser)]
#[command(
    name = "sq-worker",
    version,
    after_help = "Example:\n  sq-worker pool --config /etc/sq/gateway.toml"
)]
pub struct Cli {
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `sq-worker` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve one tenant's directory.
    Serve(serve::Options),
    /// Own every slot's socket, and start a worker when a connection waits.
    Pool(pool::Options),
    /// Verify every phext and journal of a tenant's directory: exit 1 when one is damaged. Changes nothing.
    Fsck(fsck::Options),
    /// Say what would confine a worker on this machine: exit 1 when it is not all.
    Sandbox(sandbox::Options),
    /// Ask a URL once: exit 0 when it answers with a success, else 1.
    Healthcheck(healthcheck::Options),
}
