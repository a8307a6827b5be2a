//! Which directories `fsck` verifies when it checks several tenants.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sq_shared::config::Config;
use sq_shared::data_root::DataRoot;
use sq_shared::process::failure::Failure;
use sq_shared::process::service_user;
use sq_shared::registry::{Registry, Tenant};
use sq_shared::tenant::TenantName;
use sq_shared::{file_error, layout};

pub(super) struct TenantDirectory {
    pub(super) tenant: String,
    pub(super) dir: PathBuf,
    /// Why a directory that once existed is missing.
    pub(super) gone: Option<String>,
}

/// At the root of an ext file system; only root may read it.
const LOST_AND_FOUND: &str = "lost+found";

/// The contents of a data root.
pub(super) struct Contents {
    /// Sorted by name.
    pub(super) tenants: Vec<TenantDirectory>,
    /// Files and folders that belong to no tenant.
    pub(super) stray: Vec<PathBuf>,
}

/// The tenants' directories in a data root, including those that have a note but are missing. `None` if the folder is a
/// tenant's directory: it has no marker, and it has phexts or journals, or no folders. Names that begin with a dot, such
/// as `.archive`, belong to no tenant.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn from_data_root(folder: &Path) -> Result<Option<Contents>, Failure> {
    let is_marked = layout::data_root_marker(folder).symlink_metadata().is_ok();
    let mut contents = Contents { tenants: Vec::new(), stray: Vec::new() };
    let mut has_phexts = false;
    let mut read = || -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let (name, dir) = (entry.file_name(), entry.path());
            if name == LOST_AND_FOUND {
                continue;
            }
            let is_phext = layout::stem(&name).is_some();
            let tenant = name.to_string_lossy().into_owned();
            has_phexts |= is_phext;
            if dir.is_dir() && !is_phext && !tenant.starts_with('.') {
                contents.tenants.push(TenantDirectory { tenant, dir, gone: None });
            } else if is_phext || !tenant.starts_with('.') {
                contents.stray.push(dir);
            }
        }
        Ok(())
    };
    read().map_err(|error| Failure::Failed(file_error::named(folder, error).to_string()))?;
    if !is_marked && (has_phexts || contents.tenants.is_empty()) {
        return Ok(None);
    }
    for missing in noted_and_missing(folder, &contents.tenants)? {
        // A file where the tenant's directory should be is reported once, as the missing directory.
        contents.stray.retain(|path| *path != missing.dir);
        contents.tenants.push(missing);
    }
    contents.tenants.sort_by(|one, other| one.tenant.cmp(&other.tenant));
    Ok(Some(contents))
}

/// The tenants that have a note of their directory, and no directory in the data root now. If the config is beside the data
/// root, its registry tells which directories are elsewhere.
fn noted_and_missing(folder: &Path, found: &[TenantDirectory]) -> Result<Vec<TenantDirectory>, Failure> {
    let notes = layout::tenant_notes_dir(folder);
    let entries = match std::fs::read_dir(&notes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Failure::Failed(file_error::named(&notes, error).to_string()))?,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let is_found = |name: &String| found.iter().any(|directory| directory.tenant == *name);
    let missing = names.filter(|name| name.parse::<TenantName>().is_ok() && !is_found(name));
    let elsewhere = directories_elsewhere(folder);
    Ok(missing
        .map(|tenant| {
            if let Some(dir) = elsewhere.get(&tenant).filter(|dir| dir.is_dir()) {
                return TenantDirectory { tenant, dir: dir.clone(), gone: None };
            }
            let dir = folder.join(&tenant);
            let exists = dir.symlink_metadata().is_ok();
            let why = if exists { "what is there is not a directory" } else { "it is missing" };
            let gone = format!("{why}; if the registry names another path, verify with --root or --config");
            TenantDirectory { tenant, dir, gone: Some(gone) }
        })
        .collect())
}

/// The tenants whose directory is set in the registry, if the config of this data root's system is in the folder above.
fn directories_elsewhere(data_root: &Path) -> BTreeMap<String, PathBuf> {
    let data_root = layout::resolved(data_root);
    let Some(folder) = data_root.parent() else { return BTreeMap::new() };
    let Ok(config) = Config::load(&layout::config_file(folder)) else { return BTreeMap::new() };
    if layout::resolved(&config.gateway.data_root) != data_root {
        return BTreeMap::new();
    }
    let Ok(loaded) = Registry::load(&config.gateway.tenants, &config) else { return BTreeMap::new() };
    let elsewhere = |tenant: Tenant| Some((tenant.name.to_string(), tenant.data_dir?));
    loaded.registry.tenants.into_iter().filter_map(elsewhere).collect()
}

/// The directories of all tenants in the registry. That of a tenant that was never served may not exist.
///
/// # Errors
/// Config or registry have mistakes, or the data root is missing.
pub(super) fn from_registry(config_file: &Path) -> Result<Vec<TenantDirectory>, Failure> {
    service_user::act_for_system(config_file)?;
    let config = Config::load(config_file).map_err(Failure::from_error)?;
    let registry = Registry::load(&config.gateway.tenants, &config).map_err(Failure::from_error)?.registry;
    let data_root = DataRoot::inspect(&config, &registry).map_err(Failure::from_error)?;
    let directory = |tenant: &Tenant| {
        let dir = tenant.directory(&config.gateway.data_root);
        let gone = data_root.as_ref().and_then(|data_root| match data_root.find_gone(&tenant.name, &dir) {
            Ok(gone) => gone.map(|gone| gone.as_str().to_owned()),
            Err(error) => Some(format!("failed to check whether it exists: {error}")),
        });
        TenantDirectory { tenant: tenant.name.to_string(), dir, gone }
    };
    Ok(registry.tenants.iter().map(directory).collect())
}
