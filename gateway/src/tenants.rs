//! Changes to the registry, shared by the commands and the admin API: locked, checked as a whole, then written.
//! These functions return values and errors; their callers print or serve them.

pub(crate) mod change;
pub(crate) mod new_tenants;
pub(crate) mod keys;
pub(crate) mod keys_file;
pub(crate) mod remove;
pub(crate) mod directories;
pub(crate) mod view;
pub(crate) mod error;

use std::path::Path;

use sq_shared::config::Config;
use sq_shared::data_root::{self, DataRoot};
use sq_shared::registry::edit::{EditError, PreparedEdit, RegistryEdit};
use sq_shared::registry::{Registry, Tenant};
use sq_shared::tenant::TenantName;
use sq_shared::{layout, regular_file};

pub(crate) use error::ChangeError;
use keys_file::{KeysOut, NewKey};

/// Locks the registry and reads it. Only `up`, `provision` and `import` create one.
pub(crate) fn open(config: &Config) -> Result<RegistryEdit, ChangeError> {
    if !registry_exists(config)? {
        return Err(ChangeError::NoRegistry(config.gateway.tenants.clone()));
    }
    Ok(RegistryEdit::open(&config.gateway.tenants, config)?)
}

/// Whether there is a registry; `false` means that a first one may be created.
///
/// # Errors
/// The registry cannot be looked up, or it is missing although the system has had tenants: a new one would give
/// their slots and directories to others.
pub(crate) fn find_registry(config: &Config, keys_file: &Path) -> Result<bool, ChangeError> {
    if registry_exists(config)? {
        return Ok(true);
    }
    let registry = &config.gateway.tenants;
    // A command that was killed before it published the first registry leaves directories and keys, but also the
    // registry's temporary file.
    let was_interrupted =
        || regular_file::target_of(registry).is_ok_and(|file| layout::temporary(&file).exists());
    let left_by_command = || {
        let with_keys = keys_file::has_tenants(keys_file).then(|| keys_file.to_owned());
        with_keys.or_else(|| data_root::first_note(config)).filter(|_| !was_interrupted())
    };
    match data_root::evidence_of_tenants(config).or_else(left_by_command) {
        Some(evidence) => Err(ChangeError::LostRegistry(registry.clone(), evidence)),
        None => Ok(false),
    }
}

/// False for a link whose target does not exist yet; a circle of links is an error.
fn registry_exists(config: &Config) -> Result<bool, ChangeError> {
    let file = &config.gateway.tenants;
    let exists = regular_file::target_of(file).and_then(|target| target.try_exists());
    Ok(exists.map_err(|error| EditError::Io(file.clone(), error))?)
}

/// Delivers new keys, then publishes the registry that accepts them. In the other order, a crash, a full disk or a
/// closed pipe in between would leave a tenant whose key is lost.
///
/// # Errors
/// The keys cannot be delivered, or the registry cannot be written. The registry is unchanged then, and the keys are
/// removed from the file they were written to.
fn publish_with_keys(change: PreparedEdit, keys: &[NewKey], out: &KeysOut) -> Result<(), ChangeError> {
    let delivered = out.deliver(keys).map_err(|error| ChangeError::KeysOut(out.clone(), error))?;
    match change.publish() {
        Ok(()) => Ok(()),
        // The registry accepts the keys, and an error response would not contain them.
        Err(error @ EditError::NotSynced(..)) if matches!(out, KeysOut::Caller) => {
            tracing::error!(%error, "registry written but not synced: a power cut may undo the change");
            Ok(())
        }
        Err(error @ EditError::NotSynced(..)) => Err(error.into()),
        Err(error) => Err(match (delivered.retract(), out) {
            (Ok(true), KeysOut::File(_)) | (_, KeysOut::Caller) => error.into(),
            _ => ChangeError::DeadKeys(out.clone(), error),
        }),
    }
}

/// The data root, without which no directory is created, moved or deleted.
fn data_root(config: &Config, registry: &Registry) -> Result<DataRoot, ChangeError> {
    DataRoot::establish(config, registry).map_err(ChangeError::DataRoot)
}

fn find<'r>(registry: &'r Registry, name: &TenantName) -> Result<&'r Tenant, ChangeError> {
    Ok(registry.find(name).ok_or_else(|| EditError::NoSuchTenant(name.clone()))?)
}
