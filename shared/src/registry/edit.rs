//! Changes to the registry file: under a lock, checked as a whole before it is written, written by
//! rename. Comments and order stay as they were.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::{Format, Key, Registry, Scope, Tenant, TenantState};
use crate::clock;
use crate::config::Config;
use crate::layout;
use crate::limits::KEYS_PER_TENANT;
use crate::secret_file;
use crate::tenant::TenantName;
use crate::toml_reader::Mistakes;

/// A registry that nobody else can change until it is dropped.
pub struct RegistryEdit {
    path: PathBuf,
    document: DocumentMut,
    registry: Registry,
    lock: RegistryLock,
}

/// While it lives, nobody else changes the registry.
pub struct RegistryLock(#[expect(dead_code, reason = "the lock is the open file")] File);

/// Why the registry was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file has mistakes.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// It is in one of the old formats.
    #[error(
        "{0} is in an old format: run `sq-gateway import` on it first, and name the new file in gateway.toml"
    )]
    OldFormat(PathBuf),
    /// There is no such tenant.
    #[error("there is no tenant {0}; `sq-gateway tenants list` shows those there are")]
    NoSuchTenant(TenantName),
    /// The tenant has no such key.
    #[error("tenant {0} has no key {1}; `sq-gateway tenants show {0}` lists its keys")]
    NoSuchKey(TenantName, String),
    /// The tenant has as many keys as it may.
    #[error(
        "tenant {0} has {KEYS_PER_TENANT} keys, and may have no more; take out those that have expired with \
         `sq-gateway tenants revoke-key {0} --expired`"
    )]
    TooManyKeys(TenantName),
    /// The file could not be read or written.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

impl RegistryEdit {
    /// Locks the registry and reads it. A file that does not exist is an empty registry.
    ///
    /// # Errors
    /// It has mistakes, is in an old format, or cannot be read or locked.
    pub fn open(path: &Path, config: &Config) -> Result<Self, EditError> {
        let lock = lock(path).map_err(|error| EditError::Io(layout::registry_lock(path), error))?;
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (document, registry) = (DocumentMut::new(), Registry::default());
                return Ok(Self { path: path.to_owned(), document, registry, lock: RegistryLock(lock) });
            }
            other => other.map_err(|error| EditError::Io(path.to_owned(), error))?,
        };
        let loaded = Registry::parse(path, &text, config)?;
        if loaded.format != Format::Native {
            return Err(EditError::OldFormat(path.to_owned()));
        }
        let document = text.parse().map_err(|error| Mistakes::about(path, error))?;
        Ok(Self { path: path.to_owned(), document, registry: loaded.registry, lock: RegistryLock(lock) })
    }

    /// What the file held when it was opened.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Adds a tenant.
    pub fn add(&mut self, tenant: &Tenant) {
        let tables = self.document.entry("tenant").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        if let Some(tables) = tables.as_array_of_tables_mut() {
            tables.push(tenant_table(tenant));
        }
    }

    /// Takes a tenant out.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn remove(&mut self, name: &TenantName) -> Result<(), EditError> {
        let index = self.index(name)?;
        if let Some(tables) = self.tables() {
            tables.remove(index);
        }
        Ok(())
    }

    /// Sets a tenant's state.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn set_state(&mut self, name: &TenantName, state: TenantState) -> Result<(), EditError> {
        self.table(name)?.insert("state", value(state.as_str()));
        Ok(())
    }

    /// Adds a key.
    ///
    /// # Errors
    /// There is no tenant of this name, or it has as many keys as it may.
    pub fn add_key(&mut self, name: &TenantName, key: &Key) -> Result<(), EditError> {
        let keys = self.table(name)?.entry("key").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        if let Some(keys) = keys.as_array_of_tables_mut() {
            if keys.len() >= KEYS_PER_TENANT {
                return Err(EditError::TooManyKeys(name.clone()));
            }
            keys.push(key_table(key));
        }
        Ok(())
    }

    /// Sets the time, in seconds since 1970, from which on a key is refused.
    ///
    /// # Errors
    /// There is no such tenant, or it has no such key.
    pub fn set_key_expiry(&mut self, name: &TenantName, id: &str, expires_s: i64) -> Result<(), EditError> {
        let (keys, index) = self.key(name, id)?;
        if let (Some(key), Some(expires)) = (keys.get_mut(index), toml_time(expires_s)) {
            key.insert("expires", value(expires));
        }
        Ok(())
    }

    /// Takes a key out, and notes its number: no other key gets its id.
    ///
    /// # Errors
    /// There is no such tenant, or it has no such key.
    pub fn remove_key(&mut self, name: &TenantName, id: &str) -> Result<(), EditError> {
        let (keys, index) = self.key(name, id)?;
        keys.remove(index);
        let highest = self.registry.find(name).map_or(0, Tenant::highest_key);
        if highest > 0 {
            self.table(name)?.insert("last_key", value(i64::from(highest)));
        }
        Ok(())
    }

    /// Whether the whole would be a valid registry. A command asks before it makes keys or directories.
    ///
    /// # Errors
    /// The mistakes that the changes made.
    pub fn check(&self, config: &Config) -> Result<(), EditError> {
        let text = self.document.to_string();
        if text.trim().is_empty() {
            return Ok(());
        }
        Registry::parse(Path::new("the changed registry"), &text, config)?;
        Ok(())
    }

    /// Writes the file, unless the whole of it would not be a valid registry. Gives the lock back, for whom has
    /// more to do before others may change the registry.
    ///
    /// # Errors
    /// A mistake that the changes made, or the file could not be written.
    pub fn commit(self, config: &Config) -> Result<RegistryLock, EditError> {
        self.check(config)?;
        let mut text = self.document.to_string();
        if text.trim().is_empty() {
            // A file without a word in it would be taken for one that is half written.
            text = "# No tenants.\n".to_owned();
        }
        secret_file::replace(&self.path, text.as_bytes()).map_err(|error| EditError::Io(self.path, error))?;
        Ok(self.lock)
    }

    fn tables(&mut self) -> Option<&mut ArrayOfTables> {
        self.document.get_mut("tenant").and_then(Item::as_array_of_tables_mut)
    }

    fn index(&mut self, name: &TenantName) -> Result<usize, EditError> {
        let has_name = |table: &Table| table.get("name").and_then(Item::as_str) == Some(name.as_str());
        let found = self.tables().and_then(|tables| tables.iter().position(has_name));
        found.ok_or_else(|| EditError::NoSuchTenant(name.clone()))
    }

    /// A tenant's keys, and which of them has the id.
    fn key(&mut self, name: &TenantName, id: &str) -> Result<(&mut ArrayOfTables, usize), EditError> {
        let keys = self.table(name)?.get_mut("key").and_then(Item::as_array_of_tables_mut);
        let no_such_key = || EditError::NoSuchKey(name.clone(), id.to_owned());
        let keys = keys.ok_or_else(no_such_key)?;
        let has_id = |table: &Table| table.get("id").and_then(Item::as_str) == Some(id);
        let index = keys.iter().position(has_id).ok_or_else(no_such_key)?;
        Ok((keys, index))
    }

    fn table(&mut self, name: &TenantName) -> Result<&mut Table, EditError> {
        let index = self.index(name)?;
        let found = self.tables().and_then(|tables| tables.get_mut(index));
        found.ok_or_else(|| EditError::NoSuchTenant(name.clone()))
    }
}

/// A whole registry as text, in our format.
pub fn render(registry: &Registry) -> String {
    let mut tables = ArrayOfTables::new();
    registry.tenants.iter().for_each(|tenant| tables.push(tenant_table(tenant)));
    let mut document = DocumentMut::new();
    document.insert("tenant", Item::ArrayOfTables(tables));
    document.to_string()
}

fn tenant_table(tenant: &Tenant) -> Table {
    let mut table = Table::new();
    table.insert("name", value(tenant.name.as_str()));
    table.insert("port", value(i64::from(tenant.port)));
    table.insert("state", value(tenant.state.as_str()));
    if let Some(plan) = &tenant.plan {
        table.insert("plan", value(plan));
    }
    if let Some(quota_bytes) = tenant.quota_bytes {
        table.insert("quota", value(format!("{quota_bytes}B")));
    }
    if let Some(data_dir) = &tenant.data_dir {
        table.insert("data_dir", value(data_dir.to_string_lossy().as_ref()));
    }
    if tenant.last_key > 0 {
        table.insert("last_key", value(i64::from(tenant.last_key)));
    }
    let mut keys = ArrayOfTables::new();
    tenant.keys.iter().for_each(|key| keys.push(key_table(key)));
    table.insert("key", Item::ArrayOfTables(keys));
    table
}

fn key_table(key: &Key) -> Table {
    let mut table = Table::new();
    table.insert("id", value(&key.id));
    table.insert("sha256", value(key.sha256.to_string()));
    table.insert("scope", value(key.scope.as_str()));
    if let Some(expires) = key.expires_s.and_then(toml_time) {
        table.insert("expires", value(expires));
    }
    table
}

/// `None` for a time that cannot be written; none was read or made then.
fn toml_time(seconds: i64) -> Option<toml_edit::Datetime> {
    clock::rfc3339(seconds)?.parse().ok()
}

fn lock(path: &Path) -> io::Result<File> {
    let lock_path = layout::registry_lock(path);
    let lock = File::options().create(true).append(true).mode(0o600).open(lock_path)?;
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

/// A key with the scope `write` and no end, for a token's digest.
pub fn write_key(id: String, sha256: crate::token::TokenDigest) -> Key {
    Key { id, sha256, scope: Scope::Write, expires_s: None }
}
