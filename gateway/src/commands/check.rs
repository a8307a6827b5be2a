//! `sq-gateway check`: every mistake in the config and the registry, each with file and line.

use std::path::PathBuf;

use sq_shared::config::Config;
use sq_shared::failure::Failure;
use sq_shared::registry::Registry;

use crate::cli::say;

/// Options of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sq-gateway check --config /etc/sq/gateway.toml")]
pub struct Options {
    /// The config; the registry is the one it names.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Checks both files.
///
/// # Errors
/// There are mistakes.
pub fn run(options: &Options) -> Result<(), Failure> {
    let config = Config::load(&options.config).map_err(as_list)?;
    Registry::load(&config.gateway.tenants, &config).map_err(as_list)?;
    say("ok");
    Ok(())
}

fn as_list(mistakes: sq_shared::toml_reader::Mistakes) -> Failure {
    let count = mistakes.0.len();
    let plural = if count == 1 { "" } else { "s" };
    Failure::Failed(format!("{count} mistake{plural}\n{mistakes}"))
}
