//! The commands that edit the registry. Gateway and pool notice the new file by themselves.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use sq_shared::clock::{later_s, now_s, rfc3339};
use sq_shared::failure::Failure;
use sq_shared::layout;
use sq_shared::registry::edit::{EditError, RegistryEdit};
use sq_shared::registry::{Key, Scope, Tenant, TenantState};
use sq_shared::secret_file;
use sq_shared::tenant::TenantName;

use super::super::keys_file::NewKey;
use super::super::new_tenants::{NewTenants, Terms};
use super::super::root::{RootOptions, System};
use super::{Adding, AddingKey, Named, Removing, Revoking, Rotating};
use crate::cli::{note, say};

/// How long a removed tenant's worker has to end: the pool notices within a second, and gives requests in
/// flight 30 s by default.
const WORKER_END_TIMEOUT: Duration = Duration::from_secs(40);
const WORKER_END_POLL: Duration = Duration::from_millis(50);

fn open(root: &RootOptions) -> Result<(System, RegistryEdit), Failure> {
    let system = root.open()?;
    let file = &system.config.gateway.tenants;
    if !file.exists() {
        return Err(Failure::Failed(format!(
            "{} is not there; `sq-gateway up` or `provision` makes one, and `import` makes one of an old registry",
            file.display()
        )));
    }
    let registry = RegistryEdit::open(file, &system.config).map_err(Failure::from_error)?;
    Ok((system, registry))
}

fn find<'r>(registry: &'r RegistryEdit, name: &TenantName) -> Result<&'r Tenant, Failure> {
    let tenant = registry.registry().find(name);
    tenant.ok_or_else(|| Failure::from_error(EditError::NoSuchTenant(name.clone())))
}

fn say_key(key: &NewKey) {
    say(format_args!("{} {} {}", key.tenant, key.key_id, key.token.expose()));
    note("This is the only time that the key is shown. A running gateway takes it within a second.");
}

pub(super) fn add(options: &Adding) -> Result<(), Failure> {
    let (system, registry) = open(&options.root)?;
    let name = options.name.clone();
    if registry.registry().find(&name).is_some() {
        return Err(Failure::Failed(format!("there is a tenant {name} already")));
    }
    let state = if options.reserved { TenantState::Reserved } else { TenantState::Active };
    let terms = Terms { state, plan: options.plan.clone(), quota_bytes: options.quota };
    let mut tenants = NewTenants::new(&system.config, registry);
    tenants.add(vec![name], &terms)?;
    if !options.adopt {
        tenants.refuse_used_directories()?;
    }
    tenants.commit(None, || ())?.iter().for_each(say_key);
    Ok(())
}

pub(super) fn set_state(options: &Named, state: TenantState) -> Result<(), Failure> {
    let (system, mut registry) = open(&options.root)?;
    registry.set_state(&options.name, state).map_err(Failure::from_error)?;
    registry.commit(&system.config).map_err(Failure::from_error)?;
    say(format_args!("tenant {} is {state}", options.name));
    Ok(())
}

pub(super) fn add_key(options: &AddingKey) -> Result<(), Failure> {
    let now_s = now_s();
    let expires_s = match options.expires_in {
        Some(duration) => Some(later(now_s, duration)?),
        None => options.expires,
    };
    if let Some(expires_s) = expires_s.filter(|expires_s| *expires_s <= now_s) {
        let shown = rfc3339(expires_s).unwrap_or_default();
        return Err(Failure::Usage(format!("{shown} is over: such a key would never be taken")));
    }
    let (system, registry) = open(&options.root)?;
    let tenant = find(&registry, &options.name)?.clone();
    commit_new_key(&system, registry, &tenant, options.scope, expires_s)
}

/// The new key may do what the old one might, for as long as it might.
pub(super) fn rotate_key(options: &Rotating) -> Result<(), Failure> {
    let now_s = now_s();
    let (system, mut registry) = open(&options.root)?;
    let tenant = find(&registry, &options.name)?.clone();
    let Some(old) = key_to_replace(&tenant, options.key.as_deref(), now_s)? else {
        return commit_new_key(&system, registry, &tenant, Scope::Write, None);
    };
    match options.grace {
        Some(grace) => {
            let grace_end_s = later(now_s, grace)?;
            let expires_s = old.expires_s.map_or(grace_end_s, |expires_s| expires_s.min(grace_end_s));
            registry.set_key_expiry(&tenant.name, &old.id, expires_s).map_err(Failure::from_error)?;
        }
        None => registry.remove_key(&tenant.name, &old.id).map_err(Failure::from_error)?,
    }
    commit_new_key(&system, registry, &tenant, old.scope, old.expires_s)
}

/// The key that is meant, or the only one that is valid; `None` when the tenant has no key at all.
fn key_to_replace<'t>(tenant: &'t Tenant, id: Option<&str>, now_s: i64) -> Result<Option<&'t Key>, Failure> {
    let no_such_key = |id: &str| EditError::NoSuchKey(tenant.name.clone(), id.to_owned());
    if let Some(id) = id {
        let named = tenant.keys.iter().find(|key| key.id == id);
        let named = named.ok_or_else(|| Failure::from_error(no_such_key(id)))?;
        return if named.is_valid_at(now_s) { Ok(Some(named)) } else { Err(expired(tenant)) };
    }
    let valid: Vec<&Key> = tenant.keys.iter().filter(|key| key.is_valid_at(now_s)).collect();
    match valid.as_slice() {
        [] if tenant.keys.is_empty() => Ok(None),
        [] => Err(expired(tenant)),
        [only] => Ok(Some(only)),
        several => {
            let ids: Vec<&str> = several.iter().map(|key| key.id.as_str()).collect();
            Err(Failure::Usage(format!("name the key to replace with --key: {}", ids.join(", "))))
        }
    }
}

/// A key that follows on an expired one would have expired too.
fn expired(tenant: &Tenant) -> Failure {
    let name = &tenant.name;
    Failure::Failed(format!("the key has expired; give a new one with `sq-gateway tenants add-key {name}`"))
}

fn later(now_s: i64, duration: Duration) -> Result<i64, Failure> {
    later_s(now_s, duration).ok_or_else(|| Failure::Usage("that is after the year 9999".to_owned()))
}

fn commit_new_key(
    system: &System,
    mut registry: RegistryEdit,
    tenant: &Tenant,
    scope: Scope,
    expires_s: Option<i64>,
) -> Result<(), Failure> {
    let no_more_ids = || Failure::from_error(EditError::NoMoreIds(tenant.name.clone()));
    let id = tenant.next_key_id().ok_or_else(no_more_ids)?;
    let (key, entry) =
        NewKey::generate(tenant.name.as_str(), tenant.port, id).map_err(Failure::from_error)?;
    registry.add_key(&tenant.name, &Key { scope, expires_s, ..entry }).map_err(Failure::from_error)?;
    registry.commit(&system.config).map_err(Failure::from_error)?;
    say_key(&key);
    Ok(())
}

pub(super) fn revoke_key(options: &Revoking) -> Result<(), Failure> {
    let now_s = now_s();
    let (system, mut registry) = open(&options.root)?;
    let keys = &find(&registry, &options.name)?.keys;
    let ids: Vec<String> = match &options.key {
        Some(id) => vec![id.clone()],
        None => keys.iter().filter(|key| !key.is_valid_at(now_s)).map(|key| key.id.clone()).collect(),
    };
    for id in &ids {
        registry.remove_key(&options.name, id).map_err(Failure::from_error)?;
    }
    registry.commit(&system.config).map_err(Failure::from_error)?;
    for id in &ids {
        say(format_args!("key {id} of tenant {} is revoked", options.name));
    }
    Ok(())
}

/// The tenant leaves the registry first, so that nothing starts its worker again; its directory is moved
/// or deleted when the worker has let go of it. Until then nobody else may add a tenant of that name.
pub(super) fn remove(options: &Removing) -> Result<(), Failure> {
    let (system, mut registry) = open(&options.root)?;
    let tenant = find(&registry, &options.name)?.clone();
    registry.remove(&options.name).map_err(Failure::from_error)?;
    let _registry_lock = registry.commit(&system.config).map_err(Failure::from_error)?;
    let data_root = &system.config.gateway.data_root;
    let directory = layout::tenant_dir(data_root, &tenant);
    if !directory.exists() {
        say(format_args!("tenant {} is removed; it had no directory", options.name));
        return Ok(());
    }
    let _directory_lock = wait_for_worker(&directory)?;
    let failed = |error: std::io::Error| Failure::Failed(format!("{}: {error}", directory.display()));
    if options.purge {
        std::fs::remove_dir_all(&directory).map_err(failed)?;
        say(format_args!("tenant {} and its directory are removed", options.name));
        return Ok(());
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let archive = layout::archive_dir(data_root, &tenant, now_s);
    let archives = archive.parent().unwrap_or(Path::new("."));
    secret_file::create_dir(archives).map_err(failed)?;
    std::fs::rename(&directory, &archive).map_err(failed)?;
    secret_file::sync_dir(archives).map_err(failed)?;
    say(format_args!("tenant {} is removed; its directory is now {}", options.name, archive.display()));
    Ok(())
}

/// A worker holds a lock on its directory while it lives.
fn wait_for_worker(directory: &Path) -> Result<File, Failure> {
    let lock = File::open(directory).map_err(Failure::from_error)?;
    let deadline = Instant::now() + WORKER_END_TIMEOUT;
    while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > deadline {
            let shown = directory.display();
            return Err(Failure::Failed(format!(
                "the tenant is out of the registry, but its worker still runs; {shown} was left as it is"
            )));
        }
        std::thread::sleep(WORKER_END_POLL);
    }
    Ok(lock)
}
