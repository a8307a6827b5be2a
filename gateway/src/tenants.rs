//! Changes to the registry, each for the commands and the admin API alike: locked, checked as a whole, then written.
//! They give values and errors; the commands print them, and the admin API answers them.

pub mod change;
pub mod directories;
pub mod error;
pub mod keys;
pub mod keys_file;
pub mod new_tenants;
pub mod remove;
pub mod view;

use std::path::Path;

use sq_shared::config::Config;
use sq_shared::data_root::{self, DataRoot};
use sq_shared::registry::edit::{EditError, PreparedEdit, RegistryEdit};
use sq_shared::registry::{Registry, Tenant};
use sq_shared::tenant::TenantName;
use sq_shared::{layout, regular_file};

pub use error::ChangeError;
use keys_file::{KeysOut, NewKey};

/// Locks the registry and reads it. Only `up`, `provision` and `import` make a new one.
///
/// # Errors
/// It is not there, has mistakes, or is in an old format.
pub fn open(config: &Config) -> Result<RegistryEdit, ChangeError> {
    if !is_there(config)? {
        return Err(ChangeError::NoRegistry(config.gateway.tenants.clone()));
    }
    Ok(RegistryEdit::open(&config.gateway.tenants, config)?)
}

/// Whether there is a registry. One behind a link whose target does not exist yet is missing; a circle of links is a mistake.
///
/// # Errors
/// It cannot be looked at.
pub fn is_there(config: &Config) -> Result<bool, ChangeError> {
    let file = &config.gateway.tenants;
    let found = regular_file::target_of(file).and_then(|target| target.try_exists());
    Ok(found.map_err(|error| EditError::Io(file.clone(), error))?)
}

/// Refuses to begin a registry where there has been one: its tenants would be unknown, and others in their place.
///
/// # Errors
/// The system has had tenants.
pub fn refuse_lost(config: &Config, keys_file: &Path) -> Result<(), ChangeError> {
    let registry = &config.gateway.tenants;
    // Directories and keys are made before the first registry, which a command that was killed then has not made.
    let is_unfinished =
        || regular_file::target_of(registry).is_ok_and(|file| layout::temporary(&file).exists());
    let of_commands = || {
        let with_keys = keys_file::has_tenants(keys_file).then(|| keys_file.to_owned());
        with_keys.or_else(|| data_root::first_note(config)).filter(|_| !is_unfinished())
    };
    match data_root::evidence_of_tenants(config).or_else(of_commands) {
        Some(evidence) => Err(ChangeError::LostRegistry(registry.clone(), evidence)),
        None => Ok(()),
    }
}

/// Hands new keys over, and then puts the registry in force that takes them: were it the other way round, a crash, a full
/// disk or a closed pipe in between would leave a tenant whose key is lost.
///
/// # Errors
/// The keys cannot be handed over, or the registry cannot be written. It is as it was then, and a file has the keys no
/// more.
fn commit_with_keys(
    registry: RegistryEdit,
    config: &Config,
    keys: &[NewKey],
    out: &KeysOut,
) -> Result<(), ChangeError> {
    publish_with_keys(registry.prepare(config)?, keys, out)
}

fn publish_with_keys(change: PreparedEdit, keys: &[NewKey], out: &KeysOut) -> Result<(), ChangeError> {
    let handed_over = out.hand_over(keys).map_err(|error| ChangeError::KeysOut(out.clone(), error))?;
    match change.publish() {
        Ok(()) => Ok(()),
        // It takes the keys. The caller has them from the answer, which is not to be an error without them.
        Err(error @ EditError::NotSynced(..)) if matches!(out, KeysOut::Caller) => {
            tracing::error!(%error, "a change of the registry may be lost in a power cut");
            Ok(())
        }
        Err(error @ EditError::NotSynced(..)) => Err(error.into()),
        Err(error) => Err(match (handed_over.take_back(), out) {
            (Ok(true), KeysOut::File(_)) | (_, KeysOut::Caller) => error.into(),
            _ => ChangeError::DeadKeys(out.clone(), error),
        }),
    }
}

/// The data root, without which no directory is made, moved or deleted.
///
/// # Errors
/// It is not there.
fn data_root(config: &Config, registry: &Registry) -> Result<DataRoot, ChangeError> {
    DataRoot::establish(config, registry).map_err(ChangeError::DataRoot)
}

fn find<'r>(registry: &'r RegistryEdit, name: &TenantName) -> Result<&'r Tenant, ChangeError> {
    let tenant = registry.registry().find(name);
    Ok(tenant.ok_or_else(|| EditError::NoSuchTenant(name.clone()))?)
}
