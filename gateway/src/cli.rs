//! The command line of `sq-gateway`.

use clap::{Parser, Subcommand};
use sq_shared::process::telemetry::LogFormat;

use crate::commands::{check, healthcheck, import, provision, serve, tenants, up};

/// The front door for hosts of SQ: checks keys, limits and UTF-8, and forwards each tenant to its own worker.
#[derive(Debug, Parser)]
#[command(name = "sq-gateway", version, after_help = "Example:\n  sq-gateway up")]
pub struct Cli {
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `sq-gateway` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole system here, in the foreground: gateway, pool and workers.
    Up(up::Options),
    /// Run the gateway alone.
    Serve(serve::Options),
    /// Make many tenants at once: a slot, a directory and a key each.
    Provision(provision::Options),
    /// List, add, show, activate, suspend and remove tenants, and change their keys.
    Tenants(tenants::Options),
    /// Read a registry in one of the old formats and write it in ours.
    Import(import::Options),
    /// Report every mistake in the config and the registry.
    Check(check::Options),
    /// Ask a URL once: exit 0 when it answers with a success, else 1.
    Healthcheck(healthcheck::Options),
}
