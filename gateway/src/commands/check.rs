//! `sq-gateway check`: every mistake in the config and the registry, each with file and line. An expired key is
//! no mistake, for that is what it was to become; a tenant whom nobody can use any more is worth a warning.

mod files;

use std::path::PathBuf;

use sq_shared::clock::now_s;
use sq_shared::config::Config;
use sq_shared::failure::Failure;
use sq_shared::output::{note, say};
use sq_shared::registry::{Registry, Tenant, TenantState};
use sq_shared::service_user;

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
    service_user::act_for_system(&options.config)?;
    let config = Config::load(&options.config).map_err(as_list)?;
    let loaded = Registry::load(&config.gateway.tenants, &config).map_err(as_list)?;
    let now_s = now_s();
    let is_shut_out = |tenant: &&Tenant| !tenant.keys.iter().any(|key| key.is_valid_at(now_s));
    let active = loaded.registry.tenants.iter().filter(|tenant| tenant.state == TenantState::Active);
    for tenant in active.filter(is_shut_out) {
        note(format_args!("warning: tenant {} is active and has no valid key", tenant.name));
    }
    files::check(&config, &loaded.registry)?;
    say("ok")
}

fn as_list(mistakes: sq_shared::toml_reader::Mistakes) -> Failure {
    let count = mistakes.0.len();
    let plural = if count == 1 { "" } else { "s" };
    Failure::Failed(format!("{count} mistake{plural}\n{mistakes}"))
}
