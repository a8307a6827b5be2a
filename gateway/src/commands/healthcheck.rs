//! `sq-gateway healthcheck`: for a container's health check.

use sq_shared::config::Config;
use sq_shared::process::failure::Failure;
use sq_shared::process::{healthcheck, service_user};

use super::system::NamedSystem;

/// Options of `healthcheck`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  sq-gateway healthcheck http://127.0.0.1:1337/ready\n  sq-gateway healthcheck --root /srv/sq"
)]
pub struct Options {
    /// The URL to request.
    #[arg(default_value = "http://127.0.0.1:1337/health", conflicts_with_all = ["root", "config"])]
    url: String,
    #[command(flatten)]
    system: NamedSystem,
}

/// Sends one request, to the URL or to the address in the config.
///
/// # Errors
/// There is no response within five seconds, or its status is not 2xx.
pub fn run(options: &Options) -> Result<(), Failure> {
    let Some(config_file) = options.system.config_file() else {
        return healthcheck::check(&options.url).map_err(Failure::Failed);
    };
    service_user::act_for_system(&config_file)?;
    let config = Config::load(&config_file).map_err(Failure::from_error)?;
    healthcheck::check_address(&config.gateway.listen).map_err(Failure::Failed)
}
