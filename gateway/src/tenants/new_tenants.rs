//! New tenants, for `up`, `provision`, `tenants add` and the admin API: each gets the lowest free slot, a key and a
//! directory. Everything is checked before anything is written.

use std::fs::DirEntry;
use std::io::{self, ErrorKind};
use std::path::Path;

use sq_shared::config::Config;
use sq_shared::data_root::DataRoot;
use sq_shared::layout;
use sq_shared::registry::edit::{EditError, RegistryEdit};
use sq_shared::registry::{Registry, Tenant, TenantState};
use sq_shared::tenant::TenantName;

use super::keys_file::{KeysOut, NewKey};
use super::{ChangeError, data_root, publish_with_keys};

#[derive(Debug, Clone)]
pub(crate) struct TenantSettings {
    /// Whether it is served at once.
    pub state: TenantState,
    /// A plan of the config.
    pub plan: Option<String>,
    /// Its quota, instead of the plan's.
    pub quota_bytes: Option<u64>,
}

/// Tenants to be added to the registry in one step.
pub(crate) struct NewTenants<'c> {
    config: &'c Config,
    registry: RegistryEdit,
    /// The registry without them.
    old: Registry,
    names: Vec<TenantName>,
}

impl<'c> NewTenants<'c> {
    pub(crate) fn new(config: &'c Config, registry: RegistryEdit) -> Self {
        let old = registry.registry().clone();
        Self { config, registry, old, names: Vec::new() }
    }

    /// Adds a tenant per name on the lowest free slots, and returns their keys.
    pub(crate) fn add(
        &mut self,
        names: Vec<TenantName>,
        settings: &TenantSettings,
    ) -> Result<Vec<NewKey>, ChangeError> {
        let ports = self.free_slots(names.len())?;
        let tenants = names.into_iter().zip(ports);
        let keys = tenants.map(|(name, port)| self.add_at(port, name, settings)).collect::<Result<_, _>>()?;
        self.registry.check(self.config)?;
        Ok(keys)
    }

    /// Adds a tenant on the lowest free slot, and returns its key.
    pub(crate) fn add_one(
        &mut self,
        name: TenantName,
        settings: &TenantSettings,
    ) -> Result<NewKey, ChangeError> {
        let port = self.free_slots(1)?.first().copied().unwrap_or_default();
        let key = self.add_at(port, name, settings)?;
        self.registry.check(self.config)?;
        Ok(key)
    }

    /// All free slots, if there are as many as `wanted`.
    fn free_slots(&self, wanted: usize) -> Result<Vec<u16>, ChangeError> {
        let free: Vec<u16> = self.registry.registry().free_slots(self.config).collect();
        if free.len() < wanted {
            let slots = self.config.gateway.slots.clone();
            return Err(ChangeError::NoFreeSlot { wanted, free: free.len(), slots });
        }
        Ok(free)
    }

    fn add_at(
        &mut self,
        port: u16,
        name: TenantName,
        settings: &TenantSettings,
    ) -> Result<NewKey, ChangeError> {
        let (key, entry) = NewKey::generate(&name, port, "k1".to_owned())?;
        let TenantSettings { state, plan, quota_bytes } = settings.clone();
        self.registry.add(&Tenant {
            name: name.clone(),
            port,
            state,
            plan,
            quota_bytes,
            data_dir: None,
            keys: vec![entry],
            last_key: 0,
        })?;
        self.names.push(name);
        Ok(key)
    }

    /// Refuses directories that are not empty: the new tenant could read what is in them.
    pub(crate) fn refuse_used_directories(&self) -> Result<(), ChangeError> {
        DataRoot::inspect(self.config, &self.old).map_err(ChangeError::DataRoot)?;
        for name in &self.names {
            let directory = layout::default_tenant_dir(&self.config.gateway.data_root, name);
            match first_entry(&directory) {
                Ok(None) => {}
                Ok(Some(_)) => return Err(ChangeError::UsedDirectory { directory, name: name.clone() }),
                Err(error) => return Err(ChangeError::UnreadableDirectory(directory, error)),
            }
        }
        Ok(())
    }

    /// Creates the directories, delivers the keys, and writes the registry, in this order. Without keys, there is
    /// nothing to do.
    ///
    /// # Errors
    /// Something cannot be written. The registry and the directories are unchanged then.
    pub(crate) fn commit(
        self,
        keys: &[NewKey],
        keys_out: &KeysOut,
        progress: impl Fn(),
    ) -> Result<(), ChangeError> {
        if keys.is_empty() {
            return Ok(());
        }
        keys_out.check()?;
        let data_root = data_root(self.config, &self.old)?;
        // Writes the registry's temporary file first: if this process is killed before the end, that file shows that
        // the first registry was begun.
        let change = self.registry.prepare(self.config)?;
        let mut made = Vec::new();
        let done = data_root
            .make_in_root(&self.names, &mut made, progress)
            .map_err(|error| ChangeError::Directories(data_root.path().to_owned(), error))
            .and_then(|()| publish_with_keys(change, keys, keys_out));
        // If only the sync failed, the registry has the tenants, and the directories are theirs.
        if !matches!(done, Ok(()) | Err(ChangeError::Edit(EditError::NotSynced(..)))) {
            data_root.unmake(&made);
        }
        done
    }
}

/// A missing directory has no entry; an unreadable one may have any.
fn first_entry(directory: &Path) -> io::Result<Option<DirEntry>> {
    match std::fs::read_dir(directory) {
        Ok(mut entries) => entries.next().transpose(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
