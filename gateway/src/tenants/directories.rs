//! Replaces directories that are lost for good with empty ones, at the operator's request.

use std::path::PathBuf;

use sq_shared::config::Config;
use sq_shared::data_root::DataRoot;
use sq_shared::registry::edit::EditError;
use sq_shared::registry::{Registry, Tenant};
use sq_shared::tenant::TenantName;

use super::{ChangeError, data_root, find};

/// Creates the missing directories of these tenants, or of all, and returns the ones it created. Existing directories
/// are left as they are.
pub(crate) fn create_missing(
    config: &Config,
    names: Option<&[TenantName]>,
) -> Result<Vec<(TenantName, PathBuf)>, ChangeError> {
    let registry = Registry::load(&config.gateway.tenants, config).map_err(EditError::from)?.registry;
    let tenants: Vec<&Tenant> = match names {
        Some(names) => names.iter().map(|name| find(&registry, name)).collect::<Result<_, _>>()?,
        None => registry.tenants.iter().collect(),
    };
    // By asking for all directories, the operator confirms that the data root may be a new, empty one.
    let data_root = match names {
        Some(_) => data_root(config, &registry)?,
        None => DataRoot::establish_empty(config).map_err(ChangeError::DataRoot)?,
    };
    let mut created = Vec::new();
    for tenant in tenants {
        let (name, directory) = (&tenant.name, tenant.directory(data_root.path()));
        let unusable = |error| ChangeError::UnusableDirectory(directory.clone(), error);
        if !directory.is_dir() || data_root.find_gone(name, &directory).map_err(unusable)?.is_some() {
            data_root.make(name, &directory).map_err(unusable)?;
            created.push((name.clone(), directory));
        }
    }
    Ok(created)
}
