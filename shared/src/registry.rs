//! The registry: which tenants there are, on which slot, with which keys. It is the one contract
//! between gateway, pool and CLI. `native` reads our format, `legacy` the four old ones, `directories` keeps the
//! tenants' directories apart, and `edit` changes the file.

pub mod difference;
pub mod directories;
pub mod edit;
mod legacy;
pub mod lock;
mod native;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::{Config, TenantLimits};
use crate::limits::KEY_NUMBER;
use crate::tenant::TenantName;
use crate::token::TokenDigest;
use crate::toml_reader::{Document, Mistakes};
use crate::{file_error, layout, regular_file};

/// Every tenant, checked: names, ports, keys and directories are each one tenant's alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registry {
    /// In the order of the file.
    pub tenants: Vec<Tenant>,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// Its slot.
    pub port: u16,
    /// Whether it is served.
    pub state: TenantState,
    /// A `[plan.*]` of the config.
    pub plan: Option<String>,
    /// A quota of its own, before the plan's.
    pub quota_bytes: Option<u64>,
    /// A directory of its own, absolute; without it `<data root>/<name>`.
    pub data_dir: Option<PathBuf>,
    /// Its keys.
    pub keys: Vec<Key>,
    /// The highest `N` of a key `kN` that was ever taken out; 0 for none. Its id is given to no other key.
    pub last_key: u32,
}

/// Whether a tenant is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantState {
    /// It is.
    Active,
    /// Its slot is provisioned, and waits for a customer.
    Reserved,
    /// It was, and may be again.
    Suspended,
}

/// One key of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// What it is called in logs and commands, such as `k1`.
    pub id: String,
    /// The digest of the token.
    pub sha256: TokenDigest,
    /// What it may do.
    pub scope: Scope,
    /// Seconds since 1970 from which on it is refused.
    pub expires_s: Option<i64>,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// Which of the formats a file is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Ours: `[[tenant]]`.
    Native,
    /// SQ's: `{"tenants": {"<token>": {…}}}`.
    SqHost,
    /// SQ's router: `{"tenants": [{"token", "port", "data_dir"}]}`.
    SqRouter,
    /// The Python gateway's: `[[tenants]]`.
    PythonGateway,
    /// `{"admin_key", "tenants": [{"id", "api_key", …}]}`.
    AdminKey,
}

/// A registry and what was done to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The tenants.
    pub registry: Registry,
    /// The format of the file.
    pub format: Format,
    /// What an old format could not keep: each renamed tenant and moved port, in a sentence.
    pub changes: Vec<String>,
}

impl Registry {
    /// Reads a registry file in any of the formats; the config gives slots, plans and data root.
    ///
    /// # Errors
    /// Every mistake in it, or that it cannot be read.
    pub fn load(path: &Path, config: &Config) -> Result<Loaded, Mistakes> {
        let text = regular_file::read_to_string(path).map_err(|error| {
            let is_missing = error.kind() == io::ErrorKind::NotFound && path == config.gateway.tenants;
            let what_to_do = if is_missing {
                "; put it back, or name the registry as gateway.tenants in the config"
            } else {
                ""
            };
            Mistakes::about(path, format!("{}{what_to_do}", file_error::text(path, &error)))
        })?;
        Self::parse(path, &text, config)
    }

    /// Reads a registry's text.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(path: &Path, text: &str, config: &Config) -> Result<Loaded, Mistakes> {
        if text.trim().is_empty() {
            // An editor that truncates before it writes must not take every tenant away for a moment.
            return Err(Mistakes::about(
                path,
                "the file is empty; a registry without tenants has a comment in it",
            ));
        }
        let (loaded, places) = match legacy::recognise(text) {
            None => native::parse(path, text, config)?,
            Some(format) => legacy::parse(path, text, format, config)?,
        };
        let document = Document::new(path, text);
        for (index, message) in directories::mistakes(&loaded.registry, path, config) {
            document.mistake(places.get(index).cloned().flatten(), message);
        }
        document.finish(loaded)
    }

    /// The tenant of a name.
    pub fn find(&self, name: &TenantName) -> Option<&Tenant> {
        self.tenants.iter().find(|tenant| tenant.name == *name)
    }

    /// The slots that no tenant has, lowest first.
    pub fn free_slots(&self, config: &Config) -> impl Iterator<Item = u16> {
        let taken: std::collections::BTreeSet<u16> = self.tenants.iter().map(|tenant| tenant.port).collect();
        config.gateway.slots.clone().filter(move |port| !taken.contains(port))
    }
}

impl Tenant {
    /// Its directory.
    pub fn directory(&self, data_root: &Path) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| layout::default_tenant_dir(data_root, &self.name))
    }

    /// What holds for it: its own quota, else its plan's limits, else those for everybody.
    pub fn limits(&self, config: &Config) -> TenantLimits {
        let mut limits = config.limits_of(self.plan.as_deref());
        if self.quota_bytes.is_some() {
            limits.quota_bytes = self.quota_bytes;
        }
        limits
    }

    /// The id of its next key: `k1`, `k2`, … None comes twice while the tenant is in the registry, so that a line in
    /// a log means one key. `None` after the last, [`KEY_NUMBER`].
    pub fn next_key_id(&self) -> Option<String> {
        let number = self.highest_key() + 1;
        (number <= KEY_NUMBER).then(|| format!("k{number}"))
    }

    /// The highest `N` of a key `kN` that it has or had.
    fn highest_key(&self) -> u32 {
        let numbers = self.keys.iter().filter_map(|key| key.id.strip_prefix('k')?.parse().ok());
        numbers.filter(|number| *number <= KEY_NUMBER).fold(self.last_key, u32::max)
    }
}

impl Key {
    /// Whether the key may still be used, at a time in seconds since 1970.
    pub fn is_valid_at(&self, now_s: i64) -> bool {
        self.expires_s.is_none_or(|expires_s| now_s < expires_s)
    }
}

impl TenantState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Active, Self::Reserved, Self::Suspended];

    /// As it is written in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Reserved => "reserved",
            Self::Suspended => "suspended",
        }
    }
}

impl FromStr for TenantState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| "one of active, reserved, suspended".to_owned())
    }
}

impl fmt::Display for TenantState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Scope {
    /// As it is written in the registry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            _ => Err("one of read, write".to_owned()),
        }
    }
}

/// Where something stands in the file, in bytes from its beginning.
type Place = Option<Range<usize>>;

/// Finds the values that two tenants share: each value with who had it first.
struct Unique<T>(HashMap<T, String>);

impl<T: Eq + std::hash::Hash> Unique<T> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    /// Notes a value's owner; the earlier owner, when there is one.
    fn claim(&mut self, value: T, owner: &str) -> Result<(), String> {
        match self.0.get(&value) {
            Some(earlier) => Err(earlier.clone()),
            None => {
                self.0.insert(value, owner.to_owned());
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
