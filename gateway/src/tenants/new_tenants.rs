//! New tenants, of `up`, `provision`, `tenants add` and the admin API alike: each gets the lowest free slot, a key and a
//! directory of its own. Nothing is written before all of it has been checked.

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

/// What a new tenant may have beside a name.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Whether it is served at once.
    pub state: TenantState,
    /// A plan of the config.
    pub plan: Option<String>,
    /// A quota of its own.
    pub quota_bytes: Option<u64>,
}

/// Tenants that are about to be added.
pub struct NewTenants<'c> {
    config: &'c Config,
    registry: RegistryEdit,
    /// As it was before.
    old: Registry,
    keys: Vec<NewKey>,
    names: Vec<TenantName>,
}

impl<'c> NewTenants<'c> {
    /// None yet.
    pub fn new(config: &'c Config, registry: RegistryEdit) -> Self {
        let old = registry.registry().clone();
        Self { config, registry, old, keys: Vec::new(), names: Vec::new() }
    }

    /// Adds one for each name, on the lowest free slots; [`Self::commit`] gives their keys.
    ///
    /// # Errors
    /// There are fewer free slots than names, or the whole would not be a valid registry.
    pub fn add(&mut self, names: Vec<TenantName>, terms: &Terms) -> Result<(), ChangeError> {
        let ports = self.free_slots(names.len())?;
        for (name, port) in names.into_iter().zip(ports) {
            let key = self.add_at(port, name, terms)?;
            self.keys.push(key);
        }
        Ok(self.registry.check(self.config)?)
    }

    /// Adds one on the lowest free slot, and gives its key, for [`Self::commit_one`].
    ///
    /// # Errors
    /// No slot is free, or the whole would not be a valid registry.
    pub fn add_one(&mut self, name: TenantName, terms: &Terms) -> Result<NewKey, ChangeError> {
        let port = self.free_slots(1)?.first().copied().unwrap_or_default();
        let key = self.add_at(port, name, terms)?;
        self.registry.check(self.config)?;
        Ok(key)
    }

    /// At least so many.
    fn free_slots(&self, wanted: usize) -> Result<Vec<u16>, ChangeError> {
        let free: Vec<u16> = self.registry.registry().free_slots(self.config).collect();
        if free.len() < wanted {
            let slots = self.config.gateway.slots.clone();
            return Err(ChangeError::NoFreeSlot { wanted, free: free.len(), slots });
        }
        Ok(free)
    }

    fn add_at(&mut self, port: u16, name: TenantName, terms: &Terms) -> Result<NewKey, ChangeError> {
        let made = NewKey::generate(name.as_str(), port, "k1".to_owned());
        let (key, entry) = made.map_err(ChangeError::NoRandomNumbers)?;
        let Terms { state, plan, quota_bytes } = terms.clone();
        let keys = vec![entry];
        self.registry.add(&Tenant {
            name: name.clone(),
            port,
            state,
            plan,
            quota_bytes,
            data_dir: None,
            keys,
            last_key: 0,
        })?;
        self.names.push(name);
        Ok(key)
    }

    /// Refuses directories that hold something: it would be the new tenant's to read.
    ///
    /// # Errors
    /// One of the directories is not empty, or cannot be read to see whether it is; or the data root is not there.
    pub fn refuse_used_directories(&self) -> Result<(), ChangeError> {
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

    /// Makes the directories, hands the keys over, and writes the registry, in this order. Gives the keys.
    ///
    /// # Errors
    /// Something cannot be written. The registry is as it was, and so are the directories.
    pub fn commit(mut self, keys_out: &KeysOut, progress: impl Fn()) -> Result<Vec<NewKey>, ChangeError> {
        let keys = std::mem::take(&mut self.keys);
        if !keys.is_empty() {
            self.put_in_force(&keys, keys_out, progress)?;
        }
        Ok(keys)
    }

    /// The same for one that [`Self::add_one`] has added.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn commit_one(self, key: NewKey, keys_out: &KeysOut) -> Result<NewKey, ChangeError> {
        self.put_in_force(std::slice::from_ref(&key), keys_out, || ())?;
        Ok(key)
    }

    fn put_in_force(
        self,
        keys: &[NewKey],
        keys_out: &KeysOut,
        progress: impl Fn(),
    ) -> Result<(), ChangeError> {
        keys_out.check().map_err(|error| ChangeError::KeysOut(keys_out.clone(), error))?;
        let data_root = data_root(self.config, &self.old)?;
        // Written beside the registry first: it shows that a first one was begun, should this be killed before the end.
        let change = self.registry.prepare(self.config)?;
        let mut made = Vec::new();
        let done = data_root
            .make_in_root(&self.names, &mut made, progress)
            .map_err(|error| ChangeError::Directories(data_root.path().to_owned(), error))
            .and_then(|()| publish_with_keys(change, keys, keys_out));
        // When only the sync failed, they are tenants' now.
        if !matches!(done, Ok(()) | Err(ChangeError::Edit(EditError::NotSynced(..)))) {
            data_root.unmake(&made);
        }
        done
    }
}

/// What is not there holds nothing. What cannot be read may hold anything.
fn first_entry(directory: &Path) -> io::Result<Option<DirEntry>> {
    match std::fs::read_dir(directory) {
        Ok(mut entries) => entries.next().transpose(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
