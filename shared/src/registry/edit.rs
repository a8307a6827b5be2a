//! Changes the registry file: under a lock, checked as a whole before it is written, and replaced by a rename.
//! Comments and order are kept.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value, value};

use super::lock::{LOCK_PATIENCE, RegistryLock};
use super::{Format, Key, Registry, Scope, Tenant, TenantState};
use crate::clock;
use crate::config::Config;
use crate::limits::{KEY_NUMBER, KEYS_PER_TENANT};
use crate::secret_file::{PublishError, Replacement};
use crate::tenant::TenantName;
use crate::toml_reader::{Mistake, Mistakes};
use crate::{file_error, file_owner, regular_file};

/// A registry, locked until this is dropped.
pub struct RegistryEdit {
    path: PathBuf,
    document: DocumentMut,
    /// What the document must parse to.
    registry: Registry,
    /// Whether the document in its current state has been parsed again.
    is_checked: bool,
    lock: RegistryLock,
}

/// Why the registry was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file has mistakes.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// The file is in an old format.
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
    /// The tenant has the maximum number of keys.
    #[error(
        "tenant {0} has {KEYS_PER_TENANT} keys, and may have no more; take out those that have expired with \
         `sq-gateway tenants revoke-key {0} --expired`"
    )]
    TooManyKeys(TenantName),
    /// The tenant has used the last key id.
    #[error(
        "tenant {0} has had key k{KEY_NUMBER}, and no number comes after it; lower its last_key in the registry, or \
         rename that key, if its id is no longer needed"
    )]
    NoMoreIds(TenantName),
    /// The new text does not parse to the requested registry.
    #[error("{0}: this edit would not be read back as it was meant; nothing was written")]
    ReadsOtherwise(PathBuf),
    /// Another process has held the lock longer than any change takes.
    #[error(
        "{0} has been held by another process for {patience_s} s; `fuser {0}` shows which. Nothing was changed",
        patience_s = LOCK_PATIENCE.as_secs()
    )]
    Locked(PathBuf),
    /// The file could not be read or written.
    #[error("{0}: {text}", text = file_error::text(.0, .1))]
    Io(PathBuf, io::Error),
    /// The file is another user's, who could not read it afterwards.
    #[error("{0}")]
    WrongUser(String),
    /// The registry is a link that was changed meanwhile.
    #[error("{0}: the symbolic link leads to another file than a moment ago; nothing was changed, try again")]
    Moved(PathBuf),
    /// The change is made, but a power cut may undo it.
    #[error("{0}: {1}")]
    NotSynced(PathBuf, io::Error),
}

/// A changed registry, written beside the old one. Dropped, the change is not made.
pub struct PreparedEdit {
    path: PathBuf,
    replacement: Replacement,
    lock: RegistryLock,
}

impl PreparedEdit {
    /// Replaces the registry.
    ///
    /// # Errors
    /// It could not be renamed, and nothing is changed; or it is replaced, but could not be synced.
    pub fn publish(self) -> Result<(), EditError> {
        let Self { path, replacement, lock } = self;
        if regular_file::target_of(&path).ok().as_ref() != Some(&lock.target) {
            return Err(EditError::Moved(path));
        }
        let has_other_names = lock.target.symlink_metadata().is_ok_and(|found| found.nlink() > 1);
        let published = replacement.publish();
        if has_other_names && !matches!(published, Err(PublishError::NotReplaced(_))) {
            tracing::warn!(
                registry = %lock.target.display(),
                "the registry had other names (hard links): they keep the old text, and what was changed reaches nothing that \
                 reads it by one of them; link them to this file again, or use symbolic links"
            );
        }
        match published {
            Ok(()) => Ok(()),
            Err(PublishError::NotReplaced(error)) => Err(EditError::Io(path, error)),
            Err(error @ PublishError::NotSynced(_)) => Err(EditError::NotSynced(path, error.into())),
        }
    }
}

impl RegistryEdit {
    /// Locks and reads the registry. A missing file is an empty registry.
    ///
    /// # Errors
    /// It has mistakes, is in an old format, or cannot be read or locked.
    pub fn open(path: &Path, config: &Config) -> Result<Self, EditError> {
        let target = regular_file::target_of(path).map_err(|error| EditError::Io(path.to_owned(), error))?;
        file_owner::refuse_wrong_user(&[&target]).map_err(|error| EditError::WrongUser(error.to_string()))?;
        let lock = RegistryLock::take(path, LOCK_PATIENCE)?;
        let (document, registry) = match regular_file::read_to_string(&lock.target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => <_>::default(),
            Err(error) => return Err(EditError::Io(path.to_owned(), error)),
            Ok(text) => {
                let loaded = Registry::parse(path, &text, config)?;
                if loaded.format != Format::Native {
                    return Err(EditError::OldFormat(path.to_owned()));
                }
                (text.parse().map_err(|error| Mistakes::about(path, error))?, loaded.registry)
            }
        };
        Ok(Self { path: path.to_owned(), document, registry, is_checked: false, lock })
    }

    /// The content of the file with the edits made so far.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Adds a tenant.
    pub fn add(&mut self, tenant: &Tenant) -> Result<(), EditError> {
        self.tables()?.push(tenant_table(tenant));
        self.registry.tenants.push(tenant.clone());
        Ok(())
    }

    /// Removes a tenant.
    pub fn remove(&mut self, name: &TenantName) -> Result<(), EditError> {
        self.tenant(name)?;
        self.tables()?.retain(|table| !has(table, "name", name.as_str()));
        self.registry.tenants.retain(|tenant| tenant.name != *name);
        Ok(())
    }

    /// Sets a tenant's state.
    pub fn set_state(&mut self, name: &TenantName, state: TenantState) -> Result<(), EditError> {
        self.table(name)?.insert("state", value(state.as_str()));
        self.tenant(name)?.state = state;
        Ok(())
    }

    /// Sets a tenant's plan, or removes it.
    pub fn set_plan(&mut self, name: &TenantName, plan: Option<&str>) -> Result<(), EditError> {
        set(self.table(name)?, "plan", plan.map(value));
        self.tenant(name)?.plan = plan.map(str::to_owned);
        Ok(())
    }

    /// Sets a tenant's own quota, in bytes, or removes it.
    pub fn set_quota(&mut self, name: &TenantName, quota_bytes: Option<u64>) -> Result<(), EditError> {
        set(self.table(name)?, "quota", quota_bytes.map(quota_value));
        self.tenant(name)?.quota_bytes = quota_bytes;
        Ok(())
    }

    /// Adds a key.
    pub fn add_key(&mut self, name: &TenantName, key: &Key) -> Result<(), EditError> {
        let keys = self.keys(name)?;
        if keys.len() >= KEYS_PER_TENANT {
            return Err(EditError::TooManyKeys(name.clone()));
        }
        keys.push(key_table(key));
        self.tenant(name)?.keys.push(key.clone());
        Ok(())
    }

    /// Sets when a key expires, in seconds since 1970.
    pub fn set_key_expiry(&mut self, name: &TenantName, id: &str, expires_s: i64) -> Result<(), EditError> {
        let key = self.key(name, id)?;
        key.insert("expires", toml_time(expires_s).map_or(Item::None, value));
        let keys = self.tenant(name)?.keys.iter_mut();
        keys.filter(|key| key.id == id).for_each(|key| key.expires_s = Some(expires_s));
        Ok(())
    }

    /// Removes a key, and notes its number, so that no other key gets its id.
    pub fn remove_key(&mut self, name: &TenantName, id: &str) -> Result<(), EditError> {
        self.key(name, id)?;
        self.keys(name)?.retain(|key| !has(key, "id", id));
        let tenant = self.tenant(name)?;
        let highest = tenant.highest_key();
        tenant.last_key = highest;
        tenant.keys.retain(|key| key.id != id);
        if highest > 0 {
            self.table(name)?.insert("last_key", value(i64::from(highest)));
        }
        Ok(())
    }

    /// Checks that the whole is a valid registry, and the requested one. A command checks before it makes keys or
    /// directories.
    pub fn check(&mut self, config: &Config) -> Result<(), EditError> {
        if self.is_checked {
            return Ok(());
        }
        let read = Registry::parse(&self.path, &self.text(), config).map_err(as_it_would_be)?.registry;
        if read != self.registry {
            return Err(EditError::ReadsOtherwise(self.path.clone()));
        }
        self.is_checked = true;
        Ok(())
    }

    /// Writes the file, if the whole is a valid registry.
    ///
    /// # Errors
    /// There is a mistake in the changes, or the file could not be written.
    pub fn commit(self, config: &Config) -> Result<(), EditError> {
        self.prepare(config)?.publish()
    }

    /// Does everything but the rename. A command then does what must precede the change, such as handing over a key:
    /// a full disk can no longer prevent the change.
    ///
    /// # Errors
    /// As for [`Self::commit`]; nothing is changed or left behind.
    pub fn prepare(mut self, config: &Config) -> Result<PreparedEdit, EditError> {
        self.check(config)?;
        let written = Replacement::write(&self.lock.target, self.text().as_bytes());
        let replacement = written.map_err(|error| EditError::Io(self.path.clone(), error))?;
        Ok(PreparedEdit { path: self.path, replacement, lock: self.lock })
    }

    fn text(&self) -> String {
        let text = self.document.to_string();
        // An empty file would be taken for one that is half written.
        if text.trim().is_empty() { "# No tenants.\n".to_owned() } else { text }
    }

    fn tenant(&mut self, name: &TenantName) -> Result<&mut Tenant, EditError> {
        self.is_checked = false;
        let found = self.registry.tenants.iter_mut().find(|tenant| tenant.name == *name);
        found.ok_or_else(|| EditError::NoSuchTenant(name.clone()))
    }

    /// The tenants' tables; each edit uses them.
    fn tables(&mut self) -> Result<&mut ArrayOfTables, EditError> {
        self.is_checked = false;
        tables(&mut self.document, "tenant").ok_or_else(|| EditError::ReadsOtherwise(self.path.clone()))
    }

    fn table(&mut self, name: &TenantName) -> Result<&mut Table, EditError> {
        let found = self.tables()?.iter_mut().find(|table| has(table, "name", name.as_str()));
        found.ok_or_else(|| EditError::NoSuchTenant(name.clone()))
    }

    fn keys(&mut self, name: &TenantName) -> Result<&mut ArrayOfTables, EditError> {
        let path = self.path.clone();
        tables(self.table(name)?, "key").ok_or(EditError::ReadsOtherwise(path))
    }

    fn key(&mut self, name: &TenantName, id: &str) -> Result<&mut Table, EditError> {
        let found = self.keys(name)?.iter_mut().find(|key| has(key, "id", id));
        found.ok_or_else(|| EditError::NoSuchKey(name.clone(), id.to_owned()))
    }
}

fn has(table: &Table, field: &str, text: &str) -> bool {
    table.get(field).and_then(Item::as_str) == Some(text)
}

fn set(table: &mut Table, field: &str, item: Option<Item>) {
    match item {
        Some(item) => table.insert(field, item),
        None => table.remove(field),
    };
}

fn quota_value(quota_bytes: u64) -> Item {
    value(format!("{quota_bytes}B"))
}

/// The tables `[[name]]`, empty if the file has no such table. An inline array becomes such tables; `None` for anything else.
fn tables<'t>(parent: &'t mut Table, name: &str) -> Option<&'t mut ArrayOfTables> {
    let item = parent.entry(name).or_insert(Item::None);
    let is_inline = item.is_array();
    *item = match std::mem::take(item).into_array_of_tables() {
        Ok(tables) => Item::ArrayOfTables(tables),
        Err(Item::None) => Item::ArrayOfTables(ArrayOfTables::new()),
        Err(Item::Value(Value::Array(array))) if array.is_empty() => {
            Item::ArrayOfTables(ArrayOfTables::new())
        }
        Err(other) => other,
    };
    let comment = if is_inline { take_comment(parent, name) } else { None };
    let tables = parent.get_mut(name)?.as_array_of_tables_mut()?;
    if let (Some(comment), Some(first)) = (comment, tables.get_mut(0)) {
        first.decor_mut().set_prefix(comment);
    }
    Some(tables)
}

/// The comment before an inline array, which would be repeated before each table.
fn take_comment(parent: &mut Table, name: &str) -> Option<String> {
    let mut key = parent.key_mut(name)?;
    let comment = key.leaf_decor().prefix().and_then(|prefix| prefix.as_str()).map(str::to_owned);
    key.leaf_decor_mut().clear();
    comment.filter(|comment| comment.contains('#'))
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
    set(&mut table, "plan", tenant.plan.as_ref().map(value));
    set(&mut table, "quota", tenant.quota_bytes.map(quota_value));
    set(&mut table, "data_dir", tenant.data_dir.as_ref().map(|path| value(path.to_string_lossy().as_ref())));
    set(&mut table, "last_key", (tenant.last_key > 0).then(|| value(i64::from(tenant.last_key))));
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
    set(&mut table, "expires", key.expires_s.and_then(toml_time).map(value));
    table
}

/// `None` for a time that cannot be written. None was read or made.
fn toml_time(seconds: i64) -> Option<toml_edit::Datetime> {
    clock::rfc3339(seconds)?.parse().ok()
}

/// Says in each mistake that its position is in a text that was not written.
fn as_it_would_be(Mistakes(mistakes): Mistakes) -> Mistakes {
    let told = |mistake: Mistake| {
        let message = format!("{} (in the file as it would be; nothing was changed)", mistake.message);
        Mistake { message, ..mistake }
    };
    Mistakes(mistakes.into_iter().map(told).collect())
}

/// A key with the scope `write` and without expiry.
pub fn write_key(id: String, sha256: crate::token::TokenDigest) -> Key {
    Key { id, sha256, scope: Scope::Write, expires_s: None }
}
