//! `sq-worker healthcheck`: what a container's health check calls.

use sq_shared::failure::Failure;

/// Options of `healthcheck`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sq-worker healthcheck http://127.0.0.1:1339/health")]
pub struct Options {
    /// What to ask: the pool's status, or a worker's /health.
    #[arg(default_value = "http://127.0.0.1:1339/health")]
    url: String,
}

/// Asks once.
///
/// # Errors
/// There is no answer within five seconds, or it is not a success.
pub fn run(options: &Options) -> Result<(), Failure> {
    sq_shared::healthcheck::check(&options.url).map_err(Failure::Failed)
}
