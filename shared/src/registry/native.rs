//! Our own format: `[[tenant]]` with its `[[tenant.key]]`.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;

use super::directories::parse_data_dir;
use super::{Format, Key, Loaded, Place, Registry, Scope, Tenant, TenantState};
use crate::config::Config;
use crate::config::units::parse_bytes;
use crate::layout;
use crate::limits::{KEY_NUMBER, KEYS_PER_TENANT};
use crate::tenant::TenantName;
use crate::token::TokenDigest;
use crate::toml_reader::{Document, Mistakes, Section};

/// The registry, and the place of each tenant's `data_dir`.
pub(super) fn parse(path: &Path, text: &str, config: &Config) -> Result<(Loaded, Vec<Place>), Mistakes> {
    let document = Document::new(path, text);
    let table = document.parse();
    let root = Section::root(&document, &table);
    let mut seen = Seen::default();
    let folder = layout::folder_of(path);
    let sections = root.sections("tenant");
    let (tenants, places) =
        sections.into_iter().filter_map(|section| read_tenant(section, &mut seen, &folder, config)).unzip();
    let registry = root.finish(Registry { tenants });
    document.finish((Loaded { registry, format: Format::Native, changes: Vec::new() }, places))
}

/// Values that only one tenant may have, each with its first owner.
#[derive(Default)]
struct Seen {
    names: HashMap<TenantName, String>,
    ports: HashMap<u16, String>,
    digests: HashMap<TokenDigest, String>,
}

/// Notes a value's owner. Returns its earlier owner, if there is one.
fn claim<T: Eq + Hash>(owners: &mut HashMap<T, String>, value: T, owner: &str) -> Option<String> {
    let earlier = owners.get(&value).cloned();
    owners.entry(value).or_insert_with(|| owner.to_owned());
    earlier
}

/// `None` after a mistake, which has been noted.
fn read_tenant(
    section: Section<'_, '_>,
    seen: &mut Seen,
    folder: &Path,
    config: &Config,
) -> Option<(Tenant, Place)> {
    let name = required(&section, "name", section.parsed("name", str::parse::<TenantName>));
    let port = required(&section, "port", section.small_number("port"));
    let owner = name.as_ref().map_or("?", TenantName::as_str);
    if let Some(name) = &name
        && claim(&mut seen.names, name.clone(), owner).is_some()
    {
        section.mistake_at("name", format!("there is a tenant {name} already"));
    }
    if let Some(port) = port {
        check_port(&section, port, owner, seen, config);
    }
    let plan = section.text("plan");
    if let Some(plan) = plan.as_ref().filter(|plan| !config.plans.contains_key(*plan)) {
        section.mistake_at("plan", format!("the config has no [plan.{plan}]"));
    }
    let state = section.parsed("state", str::parse).unwrap_or(TenantState::Active);
    let quota_bytes = section.parsed("quota", parse_bytes);
    let data_dir = section.parsed("data_dir", |text| parse_data_dir(folder, text));
    let place = section.place_of("data_dir");
    let last_key = section.integer_or("last_key", parse_key_number).unwrap_or(0);
    let mut ids = HashMap::new();
    let keys = section.sections("key");
    if keys.len() > KEYS_PER_TENANT {
        section.mistake(format!("tenant {owner} has {} keys; the limit is {KEYS_PER_TENANT}", keys.len()));
    }
    let keys: Vec<Key> = keys.into_iter().filter_map(|key| read_key(key, &mut ids, seen, owner)).collect();
    section.finish(());
    let tenant = Tenant { name: name?, port: port?, state, plan, quota_bytes, data_dir, keys, last_key };
    Some((tenant, place))
}

fn check_port(section: &Section<'_, '_>, port: u16, owner: &str, seen: &mut Seen, config: &Config) {
    let slots = &config.gateway.slots;
    if !slots.contains(&port) {
        let message = format!("port {port} is outside the slots {}-{}", slots.start(), slots.end());
        section.mistake_at("port", message);
    }
    if let Some(earlier) = claim(&mut seen.ports, port, owner) {
        section.mistake_at("port", format!("port {port} is tenant {earlier}'s already"));
    }
}

fn read_key(
    section: Section<'_, '_>,
    ids: &mut HashMap<String, String>,
    seen: &mut Seen,
    owner: &str,
) -> Option<Key> {
    let id = required(&section, "id", section.parsed("id", parse_key_id));
    let digest = required(&section, "sha256", section.parsed_secret("sha256", str::parse::<TokenDigest>));
    if let Some(id) = &id
        && claim(ids, id.clone(), owner).is_some()
    {
        section.mistake_at("id", format!("tenant {owner} has a key {id} already"));
    }
    if let Some(digest) = digest
        && let Some(earlier) = claim(&mut seen.digests, digest, owner)
    {
        section.mistake_at("sha256", format!("this key is tenant {earlier}'s already"));
    }
    let scope = section.parsed("scope", str::parse).unwrap_or(Scope::Write);
    let expires_s = section.timestamp_s("expires");
    section.finish(());
    Some(Key { id: id?, sha256: digest?, scope, expires_s })
}

fn parse_key_id(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err("1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.'".to_owned())
}

fn parse_key_number(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number <= KEY_NUMBER);
    number.ok_or_else(|| format!("a whole number from 0 to {KEY_NUMBER}"))
}

/// Notes a missing field. An invalid one was noted where it was read.
fn required<T>(section: &Section<'_, '_>, key: &'static str, value: Option<T>) -> Option<T> {
    if value.is_none() && !section.has(key) {
        section.mistake(format!("{key} is missing"));
    }
    value
}
