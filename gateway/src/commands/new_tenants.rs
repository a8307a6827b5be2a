//! What `up`, `provision` and `tenants add` have in common: a new tenant gets the lowest free slot, a key and a
//! directory of its own. Nothing is written before all of it has been checked.

use std::io;
use std::path::Path;

use sq_shared::config::Config;
use sq_shared::failure::Failure;
use sq_shared::layout;
use sq_shared::registry::edit::RegistryEdit;
use sq_shared::registry::{Tenant, TenantState};
use sq_shared::secret_file;
use sq_shared::tenant::TenantName;

use super::keys_file::{self, NewKey};

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
    keys: Vec<NewKey>,
    names: Vec<TenantName>,
}

impl<'c> NewTenants<'c> {
    /// None yet.
    pub fn new(config: &'c Config, registry: RegistryEdit) -> Self {
        Self { config, registry, keys: Vec::new(), names: Vec::new() }
    }

    /// Adds one for each name, on the lowest free slots.
    ///
    /// # Errors
    /// There are fewer free slots than names, or the whole would not be a valid registry.
    pub fn add(&mut self, names: Vec<TenantName>, terms: &Terms) -> Result<(), Failure> {
        let free: Vec<u16> = self.registry.registry().free_slots(self.config).collect();
        if free.len() < names.len() {
            let (slots, free) = (&self.config.gateway.slots, free.len());
            return Err(Failure::Failed(format!(
                "{} tenants are to be added, but of the slots {}-{} only {free} are free; nothing was written",
                names.len(),
                slots.start(),
                slots.end(),
            )));
        }
        for (name, port) in names.into_iter().zip(free) {
            let (key, entry) =
                NewKey::generate(name.as_str(), port, "k1".to_owned()).map_err(Failure::from_error)?;
            let Terms { state, plan, quota_bytes } = terms.clone();
            let keys = vec![entry];
            let tenant = Tenant {
                name: name.clone(),
                port,
                state,
                plan,
                quota_bytes,
                data_dir: None,
                keys,
                last_key: 0,
            };
            self.registry.add(&tenant).map_err(Failure::from_error)?;
            self.keys.push(key);
            self.names.push(name);
        }
        self.registry.check(self.config).map_err(Failure::from_error)
    }

    /// Refuses directories that hold something: it would be the new tenant's to read.
    ///
    /// # Errors
    /// One of the directories is not empty.
    pub fn refuse_used_directories(&self) -> Result<(), Failure> {
        for name in &self.names {
            let directory = layout::default_tenant_dir(&self.config.gateway.data_root, name);
            let is_used = std::fs::read_dir(&directory).is_ok_and(|mut entries| entries.next().is_some());
            if is_used {
                return Err(Failure::Failed(format!(
                    "{} is not empty, and would be the new tenant's to read; move it away, or give it to the \
                     tenant with `sq-gateway tenants add {name} --adopt`",
                    directory.display()
                )));
            }
        }
        Ok(())
    }

    /// Makes the directories, appends the keys to a file, and writes the registry, in this order: were it another,
    /// a crash in between would leave a tenant whose key nobody has. Gives the keys.
    ///
    /// # Errors
    /// Something cannot be written.
    pub fn commit(self, keys_file: Option<&Path>, progress: impl Fn()) -> Result<Vec<NewKey>, Failure> {
        if self.names.is_empty() {
            return Ok(Vec::new());
        }
        let data_root = &self.config.gateway.data_root;
        make_directories(data_root, &self.names, progress).map_err(|error| {
            Failure::Failed(format!("cannot make directories in {}: {error}", data_root.display()))
        })?;
        if let Some(file) = keys_file {
            keys_file::append(file, &self.keys)
                .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", file.display())))?;
        }
        self.registry.commit(self.config).map_err(Failure::from_error)?;
        Ok(self.keys)
    }
}

fn make_directories(data_root: &Path, names: &[TenantName], progress: impl Fn()) -> io::Result<()> {
    for name in names {
        secret_file::create_dir(&layout::default_tenant_dir(data_root, name))?;
        progress();
    }
    secret_file::sync_dir(data_root)
}
