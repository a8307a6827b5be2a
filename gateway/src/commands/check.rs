//! `sq-gateway check`: reports every mistake in the config and the registry with file and line, addresses that cannot be
//! listened on, a missing data root and missing tenants' directories. An expired key is not a mistake; a tenant without
//! a valid key is worth a warning, and so is an address that other machines can reach.

mod addresses;
mod sockets;
mod owners;
mod files;

use std::path::Path;

use sq_shared::clock::now_s;
use sq_shared::config::Config;
use sq_shared::data_root::DataRoot;
use sq_shared::process::failure::Failure;
use sq_shared::process::output::{note, say};
use sq_shared::process::service_user;
use sq_shared::registry::{Registry, Tenant, TenantState};
use sq_shared::toml_reader::{Mistake, Mistakes};

use super::system::NamedSystem;

/// Options of `check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  sq-gateway check --root /srv/sq\n  sq-gateway check --config /etc/sq/gateway.toml"
)]
pub struct Options {
    #[command(flatten)]
    system: NamedSystem,
}

/// Runs all checks, and prints `ok` if there are no mistakes.
///
/// # Errors
/// There are mistakes.
pub fn run(options: &Options) -> Result<(), Failure> {
    let config_file = options.system.config_file();
    let config_file = config_file
        .ok_or_else(|| Failure::Usage("name the system to check: --root DIR, or --config FILE".to_owned()))?;
    service_user::act_for_system(&config_file)?;
    let (config, mistakes) =
        Config::load_as_far_as_possible(&config_file).map_err(|mistakes| Failure::Failed(list(&mistakes)))?;
    let mut mistakes = mistakes.map(|Mistakes(mistakes)| mistakes).unwrap_or_default();
    // `act_for_system` does not use the paths in a config with mistakes.
    service_user::act_as_owner_of(&config.gateway.tenants)?;
    service_user::act_as_owner_of(&config.gateway.data_root)?;
    let has_defaults = !mistakes.is_empty();
    let registry = match Registry::load(&config.gateway.tenants, &config) {
        Ok(loaded) => {
            // What an old format has and ours does not, such as an admin key.
            loaded.changes.iter().for_each(|change| note(format_args!("warning: {change}")));
            Some(loaded.registry)
        }
        Err(Mistakes(of_registry)) => {
            mistakes.extend(of_registry);
            if has_defaults {
                note("the registry was checked with defaults instead of the wrong fields in the config");
            }
            None
        }
    };
    registry.iter().for_each(warn_about_tenants_without_key);
    let mut denied = None;
    // The addresses and directories of a config with defaults may not be the system's.
    if !has_defaults {
        mistakes.extend(check_addresses(&config));
        let registry = registry.unwrap_or_default();
        mistakes.extend(missing_directories(&config, &registry));
        denied = files::list_denied(&config, &registry);
    }
    let listed =
        Some(mistakes).filter(|mistakes| !mistakes.is_empty()).map(|mistakes| list(&Mistakes(mistakes)));
    let wrong: Vec<String> = listed.into_iter().chain(denied).collect();
    if wrong.is_empty() { say("ok") } else { Err(Failure::Failed(wrong.join("\n"))) }
}

fn warn_about_tenants_without_key(registry: &Registry) {
    let now_s = now_s();
    let has_no_key = |tenant: &&Tenant| !tenant.keys.iter().any(|key| key.is_valid_at(now_s));
    let active = registry.tenants.iter().filter(|tenant| tenant.state == TenantState::Active);
    for tenant in active.filter(has_no_key) {
        note(format_args!("warning: tenant {} is active and has no valid key", tenant.name));
    }
}

fn check_addresses(config: &Config) -> Vec<Mistake> {
    let findings = addresses::check(config);
    for warning in &findings.warnings {
        note(format_args!("warning: {warning}"));
    }
    findings.mistakes.into_iter().map(|message| about_file(&config.path, message)).collect()
}

/// Reports a missing data root, or each tenant's directory that existed before and is missing. Creates nothing.
fn missing_directories(config: &Config, registry: &Registry) -> Vec<Mistake> {
    let data_root = match DataRoot::inspect(config, registry) {
        Ok(Some(data_root)) => data_root,
        Ok(None) => return Vec::new(),
        Err(loss) => return vec![about_file(&config.path, loss.to_string())],
    };
    let mut mistakes = Vec::new();
    for tenant in &registry.tenants {
        let directory = tenant.directory(data_root.path());
        let name = &tenant.name;
        let what = match data_root.find_gone(name, &directory) {
            Ok(None) => continue,
            Ok(Some(gone)) => format!(
                "{}; mount or restore it, or, to let tenant {name} begin with an empty one, run: sq-gateway tenants \
                 make-directory {name} --config {}",
                gone.as_str(),
                config.path.display()
            ),
            Err(error) => format!("failed to find out whether it exists: {error}"),
        };
        let message = format!("the directory of tenant {name}, {}: {what}", directory.display());
        mistakes.push(about_file(&config.gateway.tenants, message));
    }
    mistakes
}

fn about_file(file: &Path, message: String) -> Mistake {
    Mistake { file: file.to_owned(), position: None, message }
}

fn list(mistakes: &Mistakes) -> String {
    let count = mistakes.0.len();
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} mistake{plural}\n{mistakes}")
}
