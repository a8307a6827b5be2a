//! Which directories `fsck` verifies when it is asked about more than one tenant.

use std::io;
use std::path::{Path, PathBuf};

use sq_shared::config::Config;
use sq_shared::data_root::DataRoot;
use sq_shared::failure::Failure;
use sq_shared::registry::{Registry, Tenant};
use sq_shared::{layout, service_user};

/// A tenant, by name, and its directory.
pub(super) struct TenantDirectory {
    pub(super) tenant: String,
    pub(super) dir: PathBuf,
    /// Why what was there once is not there.
    pub(super) gone: Option<String>,
}

/// The tenants' directories in a data root, by name; none when the folder is a tenant's directory itself, which has phexts
/// or journals, or when it has no folders. What begins with a dot is no tenant's: `.archive` among them.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn of_data_root(folder: &Path) -> Result<Vec<TenantDirectory>, Failure> {
    let read = || -> io::Result<Option<Vec<TenantDirectory>>> {
        let mut directories = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if layout::stem(&name).is_some() {
                return Ok(None);
            }
            let dir = entry.path();
            let tenant = name.to_string_lossy().into_owned();
            if !tenant.starts_with('.') && dir.is_dir() {
                directories.push(TenantDirectory { tenant, dir, gone: None });
            }
        }
        Ok(Some(directories))
    };
    let found = read().map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))?;
    let mut directories = found.unwrap_or_default();
    directories.sort_by(|one, other| one.tenant.cmp(&other.tenant));
    Ok(directories)
}

/// The directories of a system's tenants, wherever they are; that of a tenant who has never been served may not be there.
///
/// # Errors
/// Config or registry have mistakes, or the data root is not there.
pub(super) fn of_registry(config_file: &Path) -> Result<Vec<TenantDirectory>, Failure> {
    service_user::act_for_system(config_file)?;
    let config = Config::load(config_file).map_err(Failure::from_error)?;
    let registry = Registry::load(&config.gateway.tenants, &config).map_err(Failure::from_error)?.registry;
    let data_root = DataRoot::inspect(&config, &registry).map_err(Failure::from_error)?;
    let directory = |tenant: &Tenant| {
        let dir = layout::tenant_dir(&config.gateway.data_root, tenant);
        let gone = data_root.as_ref().and_then(|data_root| match data_root.find_gone(&tenant.name, &dir) {
            Ok(gone) => gone.map(|gone| gone.as_str().to_owned()),
            Err(error) => Some(format!("it cannot be looked at: {error}")),
        });
        TenantDirectory { tenant: tenant.name.to_string(), dir, gone }
    };
    Ok(registry.tenants.iter().map(directory).collect())
}
