//! One tenant: added, and changed.

use sq_shared::config::Config;
use sq_shared::registry::{Tenant, TenantState};
use sq_shared::tenant::TenantName;

use super::keys_file::{KeysOut, NewKey};
use super::new_tenants::{NewTenants, Terms};
use super::{ChangeError, find, open};

/// What of a tenant is to be another; `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether it is served.
    pub state: Option<TenantState>,
    /// Its plan, or none.
    pub plan: Option<Option<String>>,
    /// A quota of its own, or none.
    pub quota_bytes: Option<Option<u64>>,
}

/// Adds a tenant on the lowest free slot. `adopts` gives it the directory of its name even when that holds phexts.
///
/// Gives its key, which has gone to `keys_out` before.
///
/// # Errors
/// The name is taken, no slot is free, or something cannot be written.
pub fn add(
    config: &Config,
    name: TenantName,
    terms: &Terms,
    adopts: bool,
    keys_out: &KeysOut,
) -> Result<NewKey, ChangeError> {
    let registry = open(config)?;
    if registry.registry().find(&name).is_some() {
        return Err(ChangeError::Exists(name));
    }
    let mut tenants = NewTenants::new(config, registry);
    let key = tenants.add_one(name, terms)?;
    if !adopts {
        tenants.refuse_used_directories()?;
    }
    tenants.commit_one(key, keys_out)
}

/// Changes a tenant, all of it or nothing. Gives the tenant as it is then.
///
/// # Errors
/// There is none of this name, or the registry cannot be written.
pub fn change(config: &Config, name: &TenantName, change: &Change) -> Result<Tenant, ChangeError> {
    let mut registry = open(config)?;
    if let Some(state) = change.state {
        registry.set_state(name, state)?;
    }
    if let Some(plan) = &change.plan {
        registry.set_plan(name, plan.as_deref())?;
    }
    if let Some(quota_bytes) = change.quota_bytes {
        registry.set_quota(name, quota_bytes)?;
    }
    let tenant = find(&registry, name)?.clone();
    registry.commit(config)?;
    Ok(tenant)
}
