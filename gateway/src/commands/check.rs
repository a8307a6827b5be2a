//! `sq-gateway check`: every mistake in the config and the registry, each with file and line, and addresses that cannot be
//! listened on. An expired key is no mistake, for that is what it was to become; a tenant whom nobody can use any more is
//! worth a warning, and so is an address that other machines reach. A data root or a directory that is missing is a mistake too.

mod addresses;
mod files;
mod owners;
mod sockets;

use sq_shared::clock::now_s;
use sq_shared::config::Config;
use sq_shared::data_root::DataRoot;
use sq_shared::layout;
use sq_shared::process::failure::Failure;
use sq_shared::process::output::{note, say};
use sq_shared::process::service_user;
use sq_shared::registry::{Registry, Tenant, TenantState};
use sq_shared::toml_reader::{Mistake, Mistakes};

use super::root::NamedSystem;

/// Options of `check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  sq-gateway check --root /srv/sq\n  sq-gateway check --config /etc/sq/gateway.toml"
)]
pub struct Options {
    #[command(flatten)]
    system: NamedSystem,
}

/// Checks both files, and the addresses.
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
    // A config with mistakes has not been checked for whose paths it names.
    service_user::act_as_owner_of(&config.gateway.tenants)?;
    service_user::act_as_owner_of(&config.gateway.data_root)?;
    let is_guessed = !mistakes.is_empty();
    let registry = match Registry::load(&config.gateway.tenants, &config) {
        Ok(loaded) => {
            // What an old format has and ours does not, an admin's key among it.
            loaded.changes.iter().for_each(|change| note(format_args!("warning: {change}")));
            Some(loaded.registry)
        }
        Err(Mistakes(of_registry)) => {
            mistakes.extend(of_registry);
            if is_guessed {
                note("the registry was read with the defaults in the place of what is wrong in the config");
            }
            None
        }
    };
    registry.iter().for_each(warn_of_tenants_shut_out);
    let mut denied = None;
    // What stands in the place of a mistake is not the system's.
    if !is_guessed {
        mistakes.extend(look_at_addresses(&config));
        let registry = registry.unwrap_or_default();
        mistakes.extend(missing_directories(&config, &registry));
        denied = files::list_denied(&config, &registry);
    }
    let listed =
        Some(mistakes).filter(|mistakes| !mistakes.is_empty()).map(|mistakes| list(&Mistakes(mistakes)));
    let wrong: Vec<String> = listed.into_iter().chain(denied).collect();
    if wrong.is_empty() { say("ok") } else { Err(Failure::Failed(wrong.join("\n"))) }
}

fn warn_of_tenants_shut_out(registry: &Registry) {
    let now_s = now_s();
    let is_shut_out = |tenant: &&Tenant| !tenant.keys.iter().any(|key| key.is_valid_at(now_s));
    let active = registry.tenants.iter().filter(|tenant| tenant.state == TenantState::Active);
    for tenant in active.filter(is_shut_out) {
        note(format_args!("warning: tenant {} is active and has no valid key", tenant.name));
    }
}

fn look_at_addresses(config: &Config) -> Vec<Mistake> {
    let found = addresses::look(config);
    for warning in &found.warnings {
        note(format_args!("warning: {warning}"));
    }
    let about_config = |message| Mistake { file: config.path.clone(), position: None, message };
    found.mistakes.into_iter().map(about_config).collect()
}

/// That the data root is not there, or a tenant's directory in it or elsewhere that was there once. Nothing is made.
fn missing_directories(config: &Config, registry: &Registry) -> Vec<Mistake> {
    let data_root = match DataRoot::inspect(config, registry) {
        Ok(Some(data_root)) => data_root,
        Ok(None) => return Vec::new(),
        Err(loss) => {
            return vec![Mistake { file: config.path.clone(), position: None, message: loss.to_string() }];
        }
    };
    let mut mistakes = Vec::new();
    for tenant in &registry.tenants {
        let directory = layout::tenant_dir(data_root.path(), tenant);
        let name = &tenant.name;
        let what = match data_root.find_gone(name, &directory) {
            Ok(None) => continue,
            Ok(Some(gone)) => format!(
                "{}; mount or restore it, or, if tenant {name} is to begin with an empty one: sq-gateway tenants \
                 make-directory {name} --config {}",
                gone.as_str(),
                config.path.display()
            ),
            Err(error) => format!("whether it is there cannot be told: {error}"),
        };
        let message = format!("the directory of tenant {name}, {}: {what}", directory.display());
        mistakes.push(Mistake { file: config.gateway.tenants.clone(), position: None, message });
    }
    mistakes
}

fn list(mistakes: &Mistakes) -> String {
    let count = mistakes.0.len();
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} mistake{plural}\n{mistakes}")
}
