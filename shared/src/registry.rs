//! The registry: the tenants, with their slots and keys. It is the one contract between gateway, pool and CLI.
//! `native` reads our format, `legacy` the four old ones, `directories` keeps the tenants' directories apart, and
//! `edit` changes the file.

pub mod difference;
pub mod directories;
pub mod edit;
mod legacy;
pub mod lock;
mod native;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{Config, TenantLimits};
use crate::limits::KEY_NUMBER;
use crate::tenant::TenantName;
use crate::text_enum::text_enum;
use crate::token::TokenDigest;
use crate::toml_reader::{Document, Mistakes};
use crate::{file_error, layout, regular_file};

/// All tenants, checked: no two share a name, a port, a key or a directory.
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
    /// Its own quota, which replaces the plan's.
    pub quota_bytes: Option<u64>,
    /// Its own directory, absolute; `None` is `<data root>/<name>`.
    pub data_dir: Option<PathBuf>,
    /// Its keys.
    pub keys: Vec<Key>,
    /// The highest `N` of all keys `kN` that were removed; 0 for none. No other key gets that id.
    pub last_key: u32,
}

text_enum! {
    /// Whether a tenant is served.
    pub enum TenantState {
        /// Served.
        Active = "active",
        /// Its slot is provisioned and waits for a customer.
        Reserved = "reserved",
        /// Not served for now; its data is kept.
        Suspended = "suspended",
    }
}

/// One key of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its name in logs and commands, such as `k1`.
    pub id: String,
    /// The digest of the token.
    pub sha256: TokenDigest,
    /// What it may do.
    pub scope: Scope,
    /// When it expires, in seconds since 1970.
    pub expires_s: Option<i64>,
}

text_enum! {
    /// What a key may do.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Scope {
        /// Read only.
        Read = "read",
        /// Read and write.
        Write = "write",
    }
}

/// The format of a file.
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

/// A registry, and what was changed to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The tenants.
    pub registry: Registry,
    /// The format of the file.
    pub format: Format,
    /// What could not be kept of an old format: a sentence for each renamed tenant and moved port.
    pub changes: Vec<String>,
}

impl Registry {
    /// Reads a registry file of any format. The config has the slots, plans and data root.
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

    /// The slots without a tenant, lowest first.
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

    /// Its limits: its own quota, or else its plan's limits, or else those of `[limits]`.
    pub fn limits(&self, config: &Config) -> TenantLimits {
        let mut limits = config.limits_of(self.plan.as_deref());
        if self.quota_bytes.is_some() {
            limits.quota_bytes = self.quota_bytes;
        }
        limits
    }

    /// The id of its next key: `k1`, `k2`, … No id is used twice while the tenant is in the registry, so a line in a
    /// log means one key. `None` after the last, [`KEY_NUMBER`].
    pub fn next_key_id(&self) -> Option<String> {
        let number = self.highest_key() + 1;
        (number <= KEY_NUMBER).then(|| format!("k{number}"))
    }

    /// The highest `N` of all keys `kN` that it has or had.
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

/// A place in the file, in bytes from its beginning.
type Place = Option<Range<usize>>;

#[cfg(test)]
mod tests;
