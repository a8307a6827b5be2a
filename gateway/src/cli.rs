//! The command line of `sq-gateway`.

use clap::{Parser, Subcommand};
use sq_shared::process::telemetry::LogFormat;

use crate::commands::{check, healthcheck, import, provision, serve, tenants, up};

/// A gateway for hosts of SQ: checks keys, limits and UTF-8, and forwards each tenant's requests to its own worker.
#[derive(Debug, Parser)]
#[command(name = "sq-gateway", version, after_help = "Example:\n  sq-gateway up")]
pub struct Cli {
    /// The format of log lines.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands, each with its options.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole system here, in the foreground: gateway, pool and workers.
    Up(up::Options),
    /// Run the gateway alone.
    Serve(serve::Options),
    /// Create many tenants at once, each with a slot, a directory and a key.
    Provision(provision::Options),
    /// List, add, show, activate, suspend and remove tenants, and change their keys.
    Tenants(tenants::Options),
    /// Convert a registry from one of the old formats.
    Import(import::Options),
    /// Report every mistake in the config and the registry.
    Check(check::Options),
    /// Request a URL once: exit 0 on success, 1 otherwise.
    Healthcheck(healthcheck::Options),
}
