//! The old formats, recognised by their content. Their tokens and directories are used unchanged; names that our
//! format does not allow and ports outside the slots are changed, and each change is reported. Each entry is a
//! customer: entries that cannot be distinguished are refused.

mod entries;

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::directories::parse_data_dir;
use super::edit::write_key;
use super::{Format, Loaded, Registry, Tenant, TenantState};
use crate::config::Config;
use crate::layout;
use crate::tenant::TenantName;
use crate::token::{BearerToken, TokenDigest};
use crate::toml_reader::{Document, Mistakes};
use entries::{Entry, OldTenant};

/// The old format of a text; `None` for our format and for unknown ones, because the reader of ours has the better
/// messages.
pub(super) fn recognise(text: &str) -> Option<Format> {
    if text.trim_start().starts_with('{') {
        let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let tenants = value.get("tenants");
        let first = tenants.and_then(|tenants| tenants.get(0));
        // With tenants by their tokens, `admin_key` does not tell the format.
        let by_token = tenants.is_some_and(serde_json::Value::is_object);
        let admin_key = value.get("admin_key").is_some() && !by_token;
        return Some(match first {
            Some(tenant) if admin_key || tenant.get("api_key").is_some() => Format::AdminKey,
            Some(_) => Format::SqRouter,
            None if admin_key => Format::AdminKey,
            None => Format::SqHost,
        });
    }
    // Our format has `[[tenant]]`, and is read often: most texts need no second parser.
    if !text.contains("tenants") {
        return None;
    }
    let table: toml::Table = text.parse().ok()?;
    // A file with both kinds of entries is read as ours, which reports the other kind.
    (table.contains_key("tenants") && !table.contains_key("tenant")).then_some(Format::PythonGateway)
}

/// The registry, and the place of each tenant's `data_dir`.
pub(super) fn parse(
    path: &Path,
    text: &str,
    format: Format,
    config: &Config,
) -> Result<(Loaded, Vec<super::Place>), Mistakes> {
    let entries = entries::read(path, text, format)?;
    let document = Document::new(path, text);
    let folder = layout::folder_of(path);
    let mut import = Import { document: &document, config, changes: Vec::new() };
    import.check_unknown_fields(text, &entries);
    import.report_other_members(text, format);
    let mut customers: Vec<Customer> =
        entries.into_iter().filter_map(|entry| import.customer(entry, &folder)).collect();
    import.check_tokens(&customers);
    import.make_names_unique(&mut customers);
    import.assign_slots(&mut customers);
    let changes = import.changes;
    let place = |customer: &Customer| Some(customer.entry.span.at(&["data_dir"]));
    let places = customers.iter().map(place).collect();
    let tenants = customers.into_iter().map(Customer::into_tenant).collect();
    document.finish((Loaded { registry: Registry { tenants }, format, changes }, places))
}

/// A valid entry.
struct Customer {
    entry: Entry,
    /// Its name in the file.
    label: String,
    name: TenantName,
    data_dir: Option<PathBuf>,
    digest: TokenDigest,
    /// Its slot; 0 until one is assigned.
    port: u16,
}

impl Customer {
    fn into_tenant(self) -> Tenant {
        let OldTenant { quota_mb, enabled, .. } = self.entry.old;
        Tenant {
            name: self.name,
            port: self.port,
            state: match enabled {
                None | Some(Some(true)) => TenantState::Active,
                Some(None | Some(false)) => TenantState::Suspended,
            },
            plan: None,
            quota_bytes: quota_mb.map(|mebibytes| mebibytes.saturating_mul(1 << 20)),
            data_dir: self.data_dir,
            keys: vec![write_key("k1".to_owned(), self.digest)],
            last_key: 0,
        }
    }
}

struct Import<'d> {
    document: &'d Document<'d>,
    config: &'d Config,
    changes: Vec<String>,
}

impl Import<'_> {
    /// Refuses unknown fields that may say that a tenant or its key is closed or read-only: an import must not open
    /// what was closed. Other unknown fields are ignored.
    fn check_unknown_fields(&mut self, text: &str, entries: &[Entry]) {
        let mut left_out: BTreeMap<&str, usize> = BTreeMap::new();
        for (field, range) in entries.iter().flat_map(|entry| entry.span.unknown()) {
            let value = text.get(range.clone()).unwrap_or_default();
            if matches!(value, "true" | "false" | "null")
                || MAY_CLOSE.contains(&field.to_ascii_lowercase().as_str())
            {
                let message = format!(
                    "{field} is unknown here, and may say that the tenant is closed or may only read: take it out, and \
                     write enabled = false (in JSON \"enabled\": false) for a tenant that is to be suspended"
                );
                self.document.mistake(Some(range.clone()), message);
            } else {
                *left_out.entry(field).or_default() += 1;
            }
        }
        let told =
            |(field, count)| format!("{field:?} is unknown here, and left out (entries with it: {count})");
        self.changes.extend(left_out.into_iter().map(told));
    }

    /// Ignores all members but the tenants. The key of the admin API is one: our registry has none.
    fn report_other_members(&mut self, text: &str, format: Format) {
        for (member, value) in entries::other_members(text, format) {
            let is_configured = || {
                let token = value.as_deref().and_then(|value| BearerToken::parse(value.as_bytes()).ok());
                token.is_some_and(|token| self.config.gateway.admin_key == Some(token.digest()))
            };
            if member != ADMIN_KEY {
                // A misplaced key must not be repeated.
                let is_word = member.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                let shown = if is_word { member.as_str() } else { "a member" };
                self.changes.push(format!("{shown:?}, beside the tenants, is unknown here, and left out"));
            } else if !is_configured() {
                self.changes.push(format!(
                    "{ADMIN_KEY} is not taken over: the admin API takes the key of gateway.admin_key_sha256 alone; to keep \
                     the old one, write what `printf %s OLD_KEY | sha256sum` prints there"
                ));
            }
        }
    }

    /// `None` after a mistake, which has been noted.
    fn customer(&self, entry: Entry, folder: &Path) -> Option<Customer> {
        let label = self.label(&entry)?;
        let name = TenantName::nearest(&label);
        if name.is_none() {
            self.mistake(&entry, NAME, format!("{label:?} has no letter to make a tenant's name of"));
        }
        let token = entry.old.token.as_deref().ok_or_else(|| format!("tenant {label:?} has no key"));
        let token = token.and_then(|token| {
            BearerToken::parse(token.as_bytes())
                .map_err(|error| format!("the key of tenant {label:?}: {error}"))
        });
        let digest =
            token.map_err(|message| self.mistake(&entry, TOKEN, message)).map(|token| token.digest());
        let data_dir = entry.old.data_dir.as_deref().map(|directory| parse_data_dir(folder, directory));
        let data_dir =
            data_dir.transpose().map_err(|error| self.mistake(&entry, &["data_dir"], error)).ok()?;
        Some(Customer { label, name: name?, data_dir, digest: digest.ok()?, port: 0, entry })
    }

    /// The tenant's name in the file.
    fn label(&self, entry: &Entry) -> Option<String> {
        let from_directory = || {
            let last = Path::new(entry.old.data_dir.as_deref()?).file_name()?;
            last.to_str().map(str::to_owned)
        };
        let label = entry.old.name.clone().or_else(from_directory);
        if label.is_none() {
            let message = "this tenant has neither a name nor a data_dir to take one from";
            self.mistake(entry, &["data_dir"], message);
        }
        label
    }

    fn mistake(&self, entry: &Entry, fields: &[&str], message: impl std::fmt::Display) {
        self.document.mistake(Some(entry.span.at(fields)), message);
    }

    fn line_of(&self, customer: &Customer) -> usize {
        self.document.line(customer.entry.span.whole.start)
    }

    /// Two tenants cannot have the same key: a request's tenant would be ambiguous.
    fn check_tokens(&self, customers: &[Customer]) {
        let mut owners: HashMap<TokenDigest, &Customer> = HashMap::new();
        for customer in customers {
            if let Some(earlier) = owners.insert(customer.digest, customer) {
                let (first, second) = (self.line_of(earlier), self.line_of(customer));
                let message = format!(
                    "tenants {:?} (line {first}) and {:?} (line {second}) have the same key; take one of the two \
                     entries out, or give it another key",
                    earlier.label, customer.label
                );
                self.mistake(&customer.entry, TOKEN, message);
            }
        }
    }

    /// Entries whose names become equal are distinguished by their directories, and the later one gets a number.
    /// Without a `data_dir` its directory would depend on the order of the entries, so that is refused.
    fn make_names_unique(&mut self, customers: &mut [Customer]) {
        // Valid names are kept, wherever they are in the file.
        customers.sort_by_key(|customer| customer.name.as_str() != customer.label);
        let mut taken: BTreeSet<TenantName> =
            customers.iter().map(|customer| customer.name.clone()).collect();
        let mut firsts: BTreeMap<TenantName, (usize, Option<PathBuf>)> = BTreeMap::new();
        for customer in customers {
            let line = self.line_of(customer);
            let (first_line, first_dir) = match firsts.entry(customer.name.clone()) {
                Place::Vacant(place) => {
                    place.insert((line, customer.data_dir.clone()));
                    if customer.name.as_str() != customer.label {
                        self.changes.push(format!("tenant {:?} is now {}", customer.label, customer.name));
                    }
                    continue;
                }
                Place::Occupied(place) => place.into_mut(),
            };
            if first_dir.is_none() || customer.data_dir.is_none() || *first_dir == customer.data_dir {
                self.mistake(&customer.entry, NAME, cannot_be_told_apart(&customer.name, *first_line, line));
                continue;
            }
            if let Some(name) = numbered(&customer.name, &taken) {
                let label = &customer.label;
                self.changes.push(format!(
                    "tenant {label:?} of line {line} is now {name}: the one of line {first_line} is {}",
                    customer.name
                ));
                taken.insert(name.clone());
                customer.name = name;
            }
        }
    }

    /// Ports inside the slots stay; the others get the lowest free slot, in order of name.
    fn assign_slots(&mut self, customers: &mut [Customer]) {
        let mut taken = BTreeSet::new();
        customers.sort_by(|left, right| left.name.cmp(&right.name));
        for customer in customers.iter_mut() {
            let inside = customer.entry.old.port.filter(|port| self.config.gateway.slots.contains(port));
            if let Some(port) = inside.filter(|port| taken.insert(*port)) {
                customer.port = port;
            }
        }
        let mut free = self.config.gateway.slots.clone().filter(|port| !taken.contains(port));
        for customer in customers.iter_mut().filter(|customer| customer.port == 0) {
            let name = &customer.name;
            let Some(port) = free.next() else {
                self.mistake(&customer.entry, &["port"], format!("no free slot is left for tenant {name}"));
                continue;
            };
            customer.port = port;
            if let Some(wanted) = customer.entry.old.port {
                self.changes.push(format!("tenant {name} moves from port {wanted} to {port}"));
            }
        }
    }
}

/// Unknown fields, in lower case, that may close a tenant or its key, whatever their values. Any field with a truth
/// value may too.
const MAY_CLOSE: &[&str] = &[
    "access",
    "active",
    "archived",
    "banned",
    "blocked",
    "closed",
    "deleted",
    "disabled",
    "enable",
    "expires",
    "expires_at",
    "expiry",
    "frozen",
    "inactive",
    "is_active",
    "is_enabled",
    "locked",
    "mode",
    "paused",
    "permission",
    "permissions",
    "read_only",
    "readonly",
    "revoked",
    "role",
    "scope",
    "scopes",
    "state",
    "status",
    "suspended",
    "valid_until",
];

/// The member with the key of the admin API.
const ADMIN_KEY: &str = "admin_key";

/// The fields that may hold a tenant's name, and its key.
const NAME: &[&str] = &["name", "id", "data_dir"];
const TOKEN: &[&str] = &["token", "api_key"];

fn cannot_be_told_apart(name: &TenantName, first: usize, second: usize) -> String {
    format!(
        "the entries of lines {first} and {second} would both be tenant {name}, and each entry is one customer: give one \
         of them another name, or each a separate data_dir; when they are two keys of one customer, keep one entry, \
         and add the other key after the import (docs/registry.md)"
    )
}

/// The name with the lowest number that is not taken.
fn numbered(name: &TenantName, taken: &BTreeSet<TenantName>) -> Option<TenantName> {
    let stem_bytes = crate::limits::TENANT_NAME_BYTES - 12;
    let stem: String = name.as_str().chars().take(stem_bytes).collect();
    let names = (2..).map_while(|number: u32| TenantName::nearest(&format!("{stem}-{number}")));
    names.into_iter().find(|name| !taken.contains(name))
}
