//! The commands that edit the registry. Gateway and pool notice the new file by themselves.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use sq_shared::failure::Failure;
use sq_shared::layout;
use sq_shared::registry::edit::{EditError, RegistryEdit, next_key_id};
use sq_shared::registry::{Tenant, TenantState};
use sq_shared::secret_file;
use sq_shared::tenant::TenantName;

use super::super::keys_file::NewKey;
use super::super::new_tenants::{NewTenants, Terms};
use super::super::root::{RootOptions, System};
use super::{Adding, Named, Removing, Revoking, Rotating};
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

pub(super) fn rotate_key(options: &Rotating) -> Result<(), Failure> {
    let (system, mut registry) = open(&options.root)?;
    let tenant = find(&registry, &options.name)?.clone();
    let old = match (&options.key, tenant.keys.as_slice()) {
        (Some(id), _) => Some(id.clone()),
        (None, []) => None,
        (None, [only]) => Some(only.id.clone()),
        (None, several) => {
            let ids: Vec<&str> = several.iter().map(|key| key.id.as_str()).collect();
            return Err(Failure::Usage(format!("name the key to replace with --key: {}", ids.join(", "))));
        }
    };
    let id = next_key_id(&tenant.keys);
    let (key, mut entry) =
        NewKey::generate(tenant.name.as_str(), tenant.port, id).map_err(Failure::from_error)?;
    if let Some(old) = &old {
        registry.remove_key(&tenant.name, old).map_err(Failure::from_error)?;
    }
    // The new key may do what the old one might, for as long as it might.
    if let Some(old) = tenant.keys.iter().find(|key| Some(&key.id) == old.as_ref()) {
        (entry.scope, entry.expires_s) = (old.scope, old.expires_s);
    }
    registry.add_key(&tenant.name, &entry).map_err(Failure::from_error)?;
    registry.commit(&system.config).map_err(Failure::from_error)?;
    say_key(&key);
    Ok(())
}

pub(super) fn revoke_key(options: &Revoking) -> Result<(), Failure> {
    let (system, mut registry) = open(&options.root)?;
    registry.remove_key(&options.name, &options.key).map_err(Failure::from_error)?;
    registry.commit(&system.config).map_err(Failure::from_error)?;
    say(format_args!("key {} of tenant {} is revoked", options.key, options.name));
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
