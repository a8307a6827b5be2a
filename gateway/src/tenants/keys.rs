//! Adds, replaces and revokes a tenant's keys.

use std::time::Duration;

use sq_shared::clock::later_s;
use sq_shared::config::Config;
use sq_shared::registry::edit::{EditError, RegistryEdit};
use sq_shared::registry::{Key, Scope, Tenant};
use sq_shared::tenant::TenantName;

use super::keys_file::{KeysOut, NewKey};
use super::{ChangeError, find, open, publish_with_keys};

/// Which key to replace, and when the old one stops working.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rotation<'k> {
    /// The id of the old key; optional when only one key is valid.
    pub key: Option<&'k str>,
    /// How long the old key stays valid, but never past its own expiry. Without it, the key is revoked at once.
    pub grace: Option<Duration>,
}

/// Adds a key, and returns it after delivering it to `keys_out`.
pub(crate) fn add(
    config: &Config,
    name: &TenantName,
    scope: Scope,
    expires_s: Option<i64>,
    keys_out: &KeysOut,
) -> Result<NewKey, ChangeError> {
    let registry = open(config)?;
    let tenant = find(registry.registry(), name)?.clone();
    commit_new_key(config, registry, &tenant, (scope, expires_s), keys_out)
}

/// Replaces a key in one step, and returns the new one after delivering it to `keys_out`. The new key has the old one's
/// scope and expiry.
pub(crate) fn rotate(
    config: &Config,
    name: &TenantName,
    rotation: Rotation<'_>,
    now_s: i64,
    keys_out: &KeysOut,
) -> Result<NewKey, ChangeError> {
    let mut registry = open(config)?;
    let tenant = find(registry.registry(), name)?.clone();
    let Some(old) = key_to_replace(&tenant, rotation.key, now_s)? else {
        return commit_new_key(config, registry, &tenant, (Scope::Write, None), keys_out);
    };
    match rotation.grace {
        Some(grace) => {
            let grace_end_s = later_s(now_s, grace).ok_or(ChangeError::TooFarAhead)?;
            let expires_s = old.expires_s.map_or(grace_end_s, |expires_s| expires_s.min(grace_end_s));
            registry.set_key_expiry(name, &old.id, expires_s)?;
        }
        None => registry.remove_key(name, &old.id)?,
    }
    commit_new_key(config, registry, &tenant, (old.scope, old.expires_s), keys_out)
}

/// Revokes a key.
pub(crate) fn revoke(config: &Config, name: &TenantName, id: &str) -> Result<(), ChangeError> {
    let mut registry = open(config)?;
    registry.remove_key(name, id)?;
    Ok(registry.commit(config)?)
}

/// Removes all expired keys, and returns their ids.
pub(crate) fn revoke_expired(
    config: &Config,
    name: &TenantName,
    now_s: i64,
) -> Result<Vec<String>, ChangeError> {
    let mut registry = open(config)?;
    let expired = find(registry.registry(), name)?.keys.iter().filter(|key| !key.is_valid_at(now_s));
    let ids: Vec<String> = expired.map(|key| key.id.clone()).collect();
    for id in &ids {
        registry.remove_key(name, id)?;
    }
    registry.commit(config)?;
    Ok(ids)
}

/// The named key, or the only valid one; `None` when the tenant has no key at all.
fn key_to_replace<'t>(
    tenant: &'t Tenant,
    id: Option<&str>,
    now_s: i64,
) -> Result<Option<&'t Key>, ChangeError> {
    let expired = || ChangeError::KeyExpired(tenant.name.clone());
    if let Some(id) = id {
        let named = tenant.keys.iter().find(|key| key.id == id);
        let named = named.ok_or_else(|| EditError::NoSuchKey(tenant.name.clone(), id.to_owned()))?;
        return if named.is_valid_at(now_s) { Ok(Some(named)) } else { Err(expired()) };
    }
    let valid: Vec<&Key> = tenant.keys.iter().filter(|key| key.is_valid_at(now_s)).collect();
    match valid.as_slice() {
        [] if tenant.keys.is_empty() => Ok(None),
        [] => Err(expired()),
        [only] => Ok(Some(only)),
        several => Err(ChangeError::WhichKey(several.iter().map(|key| key.id.clone()).collect())),
    }
}

fn commit_new_key(
    config: &Config,
    mut registry: RegistryEdit,
    tenant: &Tenant,
    (scope, expires_s): (Scope, Option<i64>),
    keys_out: &KeysOut,
) -> Result<NewKey, ChangeError> {
    keys_out.check()?;
    let id = tenant.next_key_id().ok_or_else(|| EditError::NoMoreIds(tenant.name.clone()))?;
    let (key, entry) = NewKey::generate(&tenant.name, tenant.port, id)?;
    registry.add_key(&tenant.name, &Key { scope, expires_s, ..entry })?;
    publish_with_keys(registry.prepare(config)?, std::slice::from_ref(&key), keys_out)?;
    Ok(key)
}
