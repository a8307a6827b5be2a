//! `tenants list` and `tenants show`.

use serde_json::{Value, json};
use sq_shared::clock::now_s;
use sq_shared::config::Config;
use sq_shared::process::failure::Failure;
use sq_shared::process::output::{say, say_json};
use sq_shared::registry::Registry;
use sq_shared::registry::edit::EditError;

use super::super::system::SystemOptions;
use super::{ListArgs, ShowArgs};
use crate::tenants::view::TenantView;

pub(super) fn list(args: &ListArgs) -> Result<(), Failure> {
    let (config, registry) = load(&args.system)?;
    if args.json {
        let now_s = now_s();
        let tenants = registry.tenants.iter().map(|tenant| json!(TenantView::new(tenant, &config, now_s)));
        return say_json(&Value::from_iter(tenants));
    }
    say(format_args!("{:<24} {:>5} {:<9} {:<12} KEYS", "TENANT", "PORT", "STATE", "PLAN"))?;
    for tenant in &registry.tenants {
        let plan = tenant.plan.as_deref().unwrap_or("-");
        let (name, state, keys) = (tenant.name.as_str(), tenant.state.as_str(), tenant.keys.len());
        say(format_args!("{name:<24} {:>5} {state:<9} {plan:<12} {keys}", tenant.port))?;
    }
    Ok(())
}

pub(super) fn show(args: &ShowArgs) -> Result<(), Failure> {
    let (config, registry) = load(&args.system)?;
    let no_such = || Failure::from_error(EditError::NoSuchTenant(args.name.clone()));
    let tenant = TenantView::new(registry.find(&args.name).ok_or_else(no_such)?, &config, now_s());
    if args.json {
        return say_json(&json!(tenant));
    }
    let or_off = |limit: Option<String>| limit.unwrap_or_else(|| "off".to_owned());
    say(format_args!("tenant     {}", tenant.name))?;
    say(format_args!("port       {}", tenant.port))?;
    say(format_args!("state      {}", tenant.state))?;
    say(format_args!("plan       {}", tenant.plan.as_deref().unwrap_or("-")))?;
    say(format_args!("directory  {}", tenant.data_dir))?;
    say(format_args!("rate       {}", or_off(tenant.per_tenant)))?;
    say(format_args!("in flight  {}", or_off(tenant.in_flight.map(|count| count.to_string()))))?;
    say(format_args!("quota      {}", or_off(tenant.quota_bytes.map(|bytes| format!("{bytes} bytes")))))?;
    for key in &tenant.keys {
        let verb = if key.expired { "expired" } else { "expires" };
        let expiry = key.expires.as_ref().map(|time| format!(", {verb} {time}")).unwrap_or_default();
        say(format_args!("key        {} ({}{expiry})", key.id, key.scope))?;
    }
    Ok(())
}

fn load(system: &SystemOptions) -> Result<(Config, Registry), Failure> {
    let config = system.open()?;
    let loaded = Registry::load(&config.gateway.tenants, &config).map_err(Failure::from_error)?;
    Ok((config, loaded.registry))
}
