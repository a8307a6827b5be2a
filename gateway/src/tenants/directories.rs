//! Directories that are gone for good: the operator says so, and an empty one is made in the place of each.

use std::path::PathBuf;

use sq_shared::config::Config;
use sq_shared::data_root::DataRoot;
use sq_shared::layout;
use sq_shared::registry::edit::EditError;
use sq_shared::registry::{Registry, Tenant};
use sq_shared::tenant::TenantName;

use super::{ChangeError, data_root};

/// Makes the directories of these tenants, or of all, where they are missing; what is there stays as it is. Gives those that
/// were made.
///
/// # Errors
/// There is no such tenant, the data root is not there, or a directory cannot be made.
pub fn make(
    config: &Config,
    names: Option<&[TenantName]>,
) -> Result<Vec<(TenantName, PathBuf)>, ChangeError> {
    let registry = Registry::load(&config.gateway.tenants, config).map_err(EditError::from)?.registry;
    let find = |name: &TenantName| registry.find(name).ok_or_else(|| EditError::NoSuchTenant(name.clone()));
    let tenants: Vec<&Tenant> = match names {
        Some(names) => names.iter().map(find).collect::<Result<_, _>>()?,
        None => registry.tenants.iter().collect(),
    };
    // Only who means all of them says that none was there.
    let data_root = match names {
        Some(_) => data_root(config, &registry)?,
        None => DataRoot::establish_empty(config).map_err(ChangeError::DataRoot)?,
    };
    let mut made = Vec::new();
    for tenant in tenants {
        let (name, directory) = (&tenant.name, layout::tenant_dir(data_root.path(), tenant));
        let in_its_way = |error| ChangeError::UnusableDirectory(directory.clone(), error);
        if !directory.is_dir() || data_root.find_gone(name, &directory).map_err(in_its_way)?.is_some() {
            data_root.make(name, &directory).map_err(in_its_way)?;
            made.push((name.clone(), directory));
        }
    }
    Ok(made)
}
