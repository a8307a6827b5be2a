//! `tenants list` and `tenants show`.

use serde_json::{Value, json};
use sq_shared::clock::{now_s, rfc3339};
use sq_shared::config::Config;
use sq_shared::layout;
use sq_shared::process::failure::Failure;
use sq_shared::process::output::{say, say_json};
use sq_shared::registry::edit::EditError;
use sq_shared::registry::{Key, Registry, Tenant};

use super::super::root::System;
use super::{Listing, Showing};
use crate::tenants::view::TenantView;

pub(super) fn list(options: &Listing) -> Result<(), Failure> {
    let (system, registry) = load(options.root.open()?)?;
    if options.json {
        let tenants: Vec<Value> =
            registry.tenants.iter().map(|tenant| as_json(tenant, &system.config)).collect();
        return say_json(&Value::from(tenants));
    }
    say(format_args!("{:<24} {:>5} {:<9} {:<12} KEYS", "TENANT", "PORT", "STATE", "PLAN"))?;
    for tenant in &registry.tenants {
        let plan = tenant.plan.as_deref().unwrap_or("-");
        let (name, state, keys) = (tenant.name.as_str(), tenant.state.as_str(), tenant.keys.len());
        say(format_args!("{name:<24} {:>5} {state:<9} {plan:<12} {keys}", tenant.port))?;
    }
    Ok(())
}

pub(super) fn show(options: &Showing) -> Result<(), Failure> {
    let (system, registry) = load(options.root.open()?)?;
    let no_such = || Failure::from_error(EditError::NoSuchTenant(options.name.clone()));
    let tenant = registry.find(&options.name).ok_or_else(no_such)?;
    if options.json {
        return say_json(&as_json(tenant, &system.config));
    }
    let limits = tenant.limits(&system.config);
    let or_off = |limit: Option<String>| limit.unwrap_or_else(|| "off".to_owned());
    say(format_args!("tenant     {}", tenant.name))?;
    say(format_args!("port       {}", tenant.port))?;
    say(format_args!("state      {}", tenant.state))?;
    say(format_args!("plan       {}", tenant.plan.as_deref().unwrap_or("-")))?;
    say(format_args!(
        "directory  {}",
        layout::tenant_dir(&system.config.gateway.data_root, tenant).display()
    ))?;
    say(format_args!("rate       {}", or_off(limits.per_tenant.map(|rate| rate.to_string()))))?;
    say(format_args!("in flight  {}", or_off(limits.in_flight.map(|count| count.to_string()))))?;
    say(format_args!("quota      {}", or_off(limits.quota_bytes.map(|bytes| format!("{bytes} bytes")))))?;
    let now_s = now_s();
    for key in &tenant.keys {
        let verb = if key.is_valid_at(now_s) { "expires" } else { "expired" };
        let expires = expires(key).map(|time| format!(", {verb} {time}")).unwrap_or_default();
        say(format_args!("key        {} ({}{expires})", key.id, key.scope.as_str()))?;
    }
    Ok(())
}

/// When a key expires, as RFC 3339 writes it.
fn expires(key: &Key) -> Option<String> {
    key.expires_s.and_then(rfc3339)
}

fn load(system: System) -> Result<(System, Registry), Failure> {
    let loaded =
        Registry::load(&system.config.gateway.tenants, &system.config).map_err(Failure::from_error)?;
    Ok((system, loaded.registry))
}

fn as_json(tenant: &Tenant, config: &Config) -> Value {
    json!(TenantView::new(tenant, config, now_s()))
}
