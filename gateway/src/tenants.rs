//! Changes to the registry, each for the commands and the admin API alike: locked, checked as a whole, then written.
//! They give values and errors; the commands print them, and the admin API answers them.

pub mod change;
pub mod error;
pub mod keys;
pub mod keys_file;
pub mod mounts;
pub mod new_tenants;
pub mod remove;
pub mod view;

use sq_shared::config::Config;
use sq_shared::registry::Tenant;
use sq_shared::registry::edit::{EditError, RegistryEdit};
use sq_shared::tenant::TenantName;

pub use error::ChangeError;

/// Locks the registry and reads it. Only `up`, `provision` and `import` make a new one.
///
/// # Errors
/// It is not there, has mistakes, or is in an old format.
pub fn open(config: &Config) -> Result<RegistryEdit, ChangeError> {
    let file = &config.gateway.tenants;
    if !file.exists() {
        return Err(ChangeError::NoRegistry(file.clone()));
    }
    Ok(RegistryEdit::open(file, config)?)
}

fn find<'r>(registry: &'r RegistryEdit, name: &TenantName) -> Result<&'r Tenant, ChangeError> {
    let tenant = registry.registry().find(name);
    Ok(tenant.ok_or_else(|| EditError::NoSuchTenant(name.clone()))?)
}
