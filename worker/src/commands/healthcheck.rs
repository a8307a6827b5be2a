//! `sq-worker healthcheck`: the health check of a container.

use std::path::{Path, PathBuf};

use sq_shared::config::{Config, ListenAddress};
use sq_shared::layout;
use sq_shared::process::failure::Failure;
use sq_shared::process::{healthcheck, service_user};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  sq-worker healthcheck http://127.0.0.1:1339/health\n  sq-worker healthcheck --root /srv/sq"
)]
pub(crate) struct Options {
    /// The URL to request: the pool's status, or a worker's /health.
    #[arg(default_value = "http://127.0.0.1:1339/health", conflicts_with_all = ["root", "config"])]
    url: String,
    /// Ask the pool of the system in this folder, at the address in its config.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    root: Option<PathBuf>,
    /// Ask the pool of the system with this config.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let of_root = options.root.as_deref().map(layout::config_file);
    let Some(config_file) = options.config.clone().or(of_root) else {
        return healthcheck::check(&options.url).map_err(Failure::Failed);
    };
    check_pool(&config_file)
}

fn check_pool(config_file: &Path) -> Result<(), Failure> {
    service_user::act_for_system(config_file)?;
    let config = Config::load(config_file).map_err(Failure::from_error)?;
    let address = config.pool.status_listen.ok_or_else(|| {
        Failure::Failed(format!(
            "{}: pool.status_listen is off, so the pool has no status; give the URL of a worker instead",
            config_file.display()
        ))
    })?;
    healthcheck::check_address(&ListenAddress::Tcp(address)).map_err(Failure::Failed)
}
