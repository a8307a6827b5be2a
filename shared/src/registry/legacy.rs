//! The old formats, told apart by what is in them. Their tokens and directories are used as they are;
//! names that ours does not allow and ports outside the slots are changed, and each change is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Format, Key, Loaded, Registry, Scope, Tenant, TenantState, Unique};
use crate::config::Config;
use crate::layout;
use crate::tenant::TenantName;
use crate::token::{BearerToken, TokenDigest};
use crate::toml_reader::{Document, Mistake, Mistakes};

/// A tenant as any of the old formats has it.
#[derive(Deserialize)]
struct OldTenant {
    #[serde(alias = "api_key")]
    token: Option<String>,
    #[serde(alias = "id")]
    name: Option<String>,
    port: Option<u16>,
    data_dir: Option<String>,
    quota_mb: Option<u64>,
    enabled: Option<bool>,
}

#[derive(Deserialize)]
struct ByToken {
    tenants: BTreeMap<String, OldTenant>,
}

#[derive(Deserialize)]
struct Listed {
    tenants: Vec<OldTenant>,
}

/// Which old format a text is in; `None` for ours, and for what is none of them: the reader of ours
/// has the better messages.
pub(super) fn recognise(text: &str) -> Option<Format> {
    if text.trim_start().starts_with('{') {
        let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let first = value.get("tenants").and_then(|tenants| tenants.get(0));
        let admin_key = value.get("admin_key").is_some();
        return Some(match first {
            Some(tenant) if admin_key || tenant.get("api_key").is_some() => Format::AdminKey,
            Some(_) => Format::SqRouter,
            None if admin_key => Format::AdminKey,
            None => Format::SqHost,
        });
    }
    // Ours has `[[tenant]]`, and is read often: most texts need no second parser.
    if !text.contains("tenants") {
        return None;
    }
    let table: toml::Table = text.parse().ok()?;
    table.contains_key("tenants").then_some(Format::PythonGateway)
}

pub(super) fn parse(path: &Path, text: &str, format: Format, config: &Config) -> Result<Loaded, Mistakes> {
    let old = read(path, text, format)?;
    let mut import =
        Import { path, config, mistakes: Vec::new(), changes: Vec::new(), names: BTreeSet::new() };
    let mut tenants = import.tenants(old);
    import.assign_slots(&mut tenants);
    import.check_tokens(&tenants);
    if import.mistakes.is_empty() {
        let tenants = tenants.into_iter().map(|drafted| drafted.tenant).collect();
        Ok(Loaded { registry: Registry { tenants }, format, changes: import.changes })
    } else {
        Err(Mistakes(import.mistakes))
    }
}

fn read(path: &Path, text: &str, format: Format) -> Result<Vec<OldTenant>, Mistakes> {
    let json_error = |error: serde_json::Error| {
        let position = Some((error.line(), error.column()));
        Mistakes(vec![Mistake { file: path.to_owned(), position, message: error.to_string() }])
    };
    match format {
        Format::SqHost => {
            let by_token: ByToken = serde_json::from_str(text).map_err(json_error)?;
            let with_token = |(token, tenant)| OldTenant { token: Some(token), ..tenant };
            Ok(by_token.tenants.into_iter().map(with_token).collect())
        }
        Format::SqRouter | Format::AdminKey => {
            serde_json::from_str::<Listed>(text).map(|listed| listed.tenants).map_err(json_error)
        }
        Format::PythonGateway | Format::Native => {
            let listed = toml::from_str::<Listed>(text).map(|listed| listed.tenants);
            listed.or_else(|error| {
                let document = Document::new(path, text);
                document.mistake(error.span(), error.message());
                document.finish(Vec::new())
            })
        }
    }
}

/// A tenant with the port it asked for, before slots are given out.
struct Drafted {
    tenant: Tenant,
    wanted_port: Option<u16>,
}

struct Import<'a> {
    path: &'a Path,
    config: &'a Config,
    mistakes: Vec<Mistake>,
    changes: Vec<String>,
    names: BTreeSet<TenantName>,
}

impl Import<'_> {
    fn mistake(&mut self, message: String) {
        self.mistakes.push(Mistake { file: self.path.to_owned(), position: None, message });
    }

    fn tenants(&mut self, old: Vec<OldTenant>) -> Vec<Drafted> {
        let mut drafted: Vec<Drafted> = Vec::with_capacity(old.len());
        let mut known: BTreeMap<(String, Option<PathBuf>), usize> = BTreeMap::new();
        for (index, old) in old.into_iter().enumerate() {
            let Some((label, digest)) = self.label_and_digest(index, &old) else { continue };
            let data_dir =
                old.data_dir.as_deref().map(|directory| layout::folder_of(self.path).join(directory));
            // A second token for the same name and directory is a second key, not a second tenant.
            let place = (label.clone(), data_dir.clone());
            if let Some(earlier) = known.get(&place).and_then(|index| drafted.get_mut(*index)) {
                let id = format!("k{}", earlier.tenant.keys.len() + 1);
                earlier.tenant.keys.push(Key { id, sha256: digest, scope: Scope::Write, expires_s: None });
                continue;
            }
            let Some(name) = self.name(&label) else { continue };
            known.insert(place, drafted.len());
            let key = Key { id: "k1".to_owned(), sha256: digest, scope: Scope::Write, expires_s: None };
            let state = if old.enabled == Some(false) { TenantState::Suspended } else { TenantState::Active };
            let quota_bytes = old.quota_mb.map(|mebibytes| mebibytes.saturating_mul(1 << 20));
            let tenant = Tenant {
                name,
                port: 0,
                state,
                plan: None,
                quota_bytes,
                data_dir,
                keys: vec![key],
                last_key: 0,
            };
            drafted.push(Drafted { tenant, wanted_port: old.port });
        }
        drafted
    }

    /// What the old file calls the tenant, and its key's digest.
    fn label_and_digest(&mut self, index: usize, old: &OldTenant) -> Option<(String, TokenDigest)> {
        let from_directory = || {
            let last = Path::new(old.data_dir.as_deref()?).file_name()?;
            last.to_str().map(str::to_owned)
        };
        let label = old.name.clone().or_else(from_directory);
        let number = index + 1;
        let Some(label) = label else {
            self.mistake(format!("tenant {number} has neither a name nor a data_dir to take one from"));
            return None;
        };
        match old.token.as_deref().map(|token| BearerToken::parse(token.as_bytes())) {
            Some(Ok(token)) => Some((label, token.digest())),
            Some(Err(error)) => {
                self.mistake(format!("tenant {number} ({label}): {error}"));
                None
            }
            None => {
                self.mistake(format!("tenant {number} ({label}) has no key"));
                None
            }
        }
    }

    fn name(&mut self, label: &str) -> Option<TenantName> {
        let Some(nearest) = TenantName::nearest(label) else {
            self.mistake(format!("\"{label}\" has no letter to make a tenant's name of"));
            return None;
        };
        let mut name = nearest.clone();
        let mut number = 2;
        while self.names.contains(&name) {
            let room = crate::limits::TENANT_NAME_BYTES - 12;
            let stem: String = nearest.as_str().chars().take(room).collect();
            name = TenantName::nearest(&format!("{stem}-{number}"))?;
            number += 1;
        }
        if name.as_str() != label {
            self.changes.push(format!("tenant \"{label}\" is now {name}"));
        }
        self.names.insert(name.clone());
        Some(name)
    }

    /// Ports inside the slots stay; the others get the lowest free slot, in order of name.
    fn assign_slots(&mut self, tenants: &mut [Drafted]) {
        let mut taken = BTreeSet::new();
        tenants.sort_by(|left, right| left.tenant.name.cmp(&right.tenant.name));
        for Drafted { tenant, wanted_port } in tenants.iter_mut() {
            let inside = wanted_port.filter(|port| self.config.gateway.slots.contains(port));
            if let Some(port) = inside.filter(|port| taken.insert(*port)) {
                tenant.port = port;
            }
        }
        let mut free = self.config.gateway.slots.clone().filter(|port| !taken.contains(port));
        for Drafted { tenant, wanted_port } in tenants.iter_mut().filter(|drafted| drafted.tenant.port == 0) {
            let Some(port) = free.next() else {
                let message = format!("no free slot is left for tenant {}", tenant.name);
                self.mistakes.push(Mistake { file: self.path.to_owned(), position: None, message });
                continue;
            };
            tenant.port = port;
            if let Some(wanted) = wanted_port {
                self.changes.push(format!("tenant {} moves from port {wanted} to {port}", tenant.name));
            }
        }
    }

    fn check_tokens(&mut self, tenants: &[Drafted]) {
        let mut digests = Unique::new();
        for Drafted { tenant, .. } in tenants {
            for key in &tenant.keys {
                if let Err(earlier) = digests.claim(key.sha256, tenant.name.as_str()) {
                    self.mistake(format!("tenants {earlier} and {} have the same key", tenant.name));
                }
            }
        }
    }
}
