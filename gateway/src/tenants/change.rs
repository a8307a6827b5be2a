//! Adds one tenant, or changes one.

use sq_shared::config::Config;
use sq_shared::registry::{Tenant, TenantState};
use sq_shared::tenant::TenantName;

use super::keys_file::{KeysOut, NewKey};
use super::new_tenants::{NewTenants, TenantSettings};
use super::{ChangeError, find, open};

/// What to change in a tenant; `None` leaves a setting as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub state: Option<TenantState>,
    /// `Some(None)` removes its plan.
    pub plan: Option<Option<String>>,
    /// `Some(None)` removes its quota, and the plan's or the config's applies.
    pub quota_bytes: Option<Option<u64>>,
}

/// Adds a tenant on the lowest free slot, and returns its key after delivering it to `keys_out`. With `adopt`, the
/// tenant gets the directory of its name even if that holds phexts.
pub(crate) fn add(
    config: &Config,
    name: TenantName,
    settings: &TenantSettings,
    adopt: bool,
    keys_out: &KeysOut,
) -> Result<NewKey, ChangeError> {
    let registry = open(config)?;
    if registry.registry().find(&name).is_some() {
        return Err(ChangeError::Exists(name));
    }
    let mut tenants = NewTenants::new(config, registry);
    let key = tenants.add_one(name, settings)?;
    if !adopt {
        tenants.refuse_used_directories()?;
    }
    tenants.commit(std::slice::from_ref(&key), keys_out, || ())?;
    Ok(key)
}

/// Makes the whole change or none of it, and returns the changed tenant.
pub(crate) fn change(config: &Config, name: &TenantName, change: &Change) -> Result<Tenant, ChangeError> {
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
    let tenant = find(registry.registry(), name)?.clone();
    registry.commit(config)?;
    Ok(tenant)
}
