//! Registry files of all formats: what is accepted isolates its tenants, and is the same once it is written in our
//! own format.

use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;

use sq_shared::config::Config;
use sq_shared::registry::{Format, Registry, edit};

use super::config::assert_stand_in;

/// The folder is not there: directories are compared by their names.
const FILE: &str = "/nowhere/tenants";

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = "[gateway]\nslots = \"1341-1356\"\n[plan.founding]\nquota = \"10GiB\"\n";
    Config::parse(Path::new("/nowhere/gateway.toml"), text).unwrap()
});

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let loaded = match Registry::parse(Path::new(FILE), text, &CONFIG) {
        Ok(loaded) => loaded,
        Err(mistakes) => return assert_stand_in(text, &mistakes),
    };
    assert_isolated(&loaded.registry);
    assert!(loaded.format != Format::Native || loaded.changes.is_empty());
    let native = edit::render(&loaded.registry);
    if loaded.registry.tenants.is_empty() {
        return;
    }
    let again = Registry::parse(Path::new(FILE), &native, &CONFIG)
        .unwrap_or_else(|mistakes| panic!("{mistakes}\n{native}"));
    assert_eq!(again.format, Format::Native);
    assert_eq!(again.registry, loaded.registry, "{native}");
}

fn assert_isolated(registry: &Registry) {
    let (mut names, mut ports, mut digests) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut directories: Vec<&Path> = Vec::new();
    for tenant in &registry.tenants {
        assert!(names.insert(tenant.name.as_str()), "two tenants {}", tenant.name);
        assert!(ports.insert(tenant.port) && CONFIG.gateway.slots.contains(&tenant.port));
        assert!(tenant.plan.as_ref().is_none_or(|plan| CONFIG.plans.contains_key(plan)));
        let mut ids = HashSet::new();
        for key in &tenant.keys {
            assert!(ids.insert(&key.id), "two keys {} of {}", key.id, tenant.name);
            assert!(digests.insert(key.sha256), "a key of two tenants");
        }
        if let Some(directory) = &tenant.data_dir {
            assert!(directory.is_absolute());
            assert!(
                directories
                    .iter()
                    .all(|other| !directory.starts_with(other) && !other.starts_with(directory))
            );
            directories.push(directory);
        }
        assert_eq!(registry.find(&tenant.name), Some(tenant));
    }
    assert!(registry.free_slots(&CONFIG).all(|port| !ports.contains(&port)));
}
