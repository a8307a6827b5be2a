//! The desired state: each tenant's slot and settings, from the config and the registry.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sq_shared::config::Config;
use sq_shared::registry::{Registry, Tenant, TenantState};
use sq_shared::tenant::TenantName;

use crate::settings::WorkerSettings;

/// A slot's tenant, and its worker's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) tenant: TenantName,
    /// The tenant's directory, absolute.
    pub(crate) data_dir: PathBuf,
    pub(crate) settings: WorkerSettings,
}

/// A tenant of the registry, active or not: its directory and quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) tenant: TenantName,
    /// The tenant's directory, absolute.
    pub(crate) data_dir: PathBuf,
    /// All its phexts together; `None` is no limit.
    pub(crate) quota_bytes: Option<u64>,
}

/// The desired state of all slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    /// By port; active tenants only. No directory is another's or inside it.
    pub(crate) assignments: BTreeMap<u16, Arc<Assignment>>,
    /// How long a worker may take to end before it is killed.
    pub(crate) stop_grace: Duration,
    /// The pool stops: all workers are stopped, and connections wait for the next pool.
    pub(crate) is_closing: bool,
}

impl Assignment {
    /// Whether a worker can switch between these assignments: only their settings differ.
    pub(crate) fn is_same_worker(&self, other: &Self) -> bool {
        self.tenant == other.tenant && self.data_dir == other.data_dir
    }

    /// Whether the two directories must not be open at once: they are the same, or one is inside the other.
    pub(crate) fn shares_directory(&self, other: &Self) -> bool {
        self.data_dir.starts_with(&other.data_dir) || other.data_dir.starts_with(&self.data_dir)
    }

    fn new(tenant: &Tenant, config: &Config) -> Self {
        let limits = tenant.limits(config);
        Self {
            tenant: tenant.name.clone(),
            data_dir: data_dir(tenant, config),
            settings: WorkerSettings {
                keys: tenant.keys.clone(),
                quota_bytes: limits.quota_bytes,
                phexts: limits.phexts,
                coordinate: config.limits.coordinate,
                memory_bytes: limits.memory_bytes,
                body_bytes: config.limits.body_bytes,
                idle_timeout_ms: milliseconds(config.pool.idle_timeout),
                drain_ms: milliseconds(config.timeouts.drain),
                directory: None,
            },
        }
    }
}

impl Desired {
    /// The time for a worker to end beyond its own drain, which is the config's too: a slow one ends without being
    /// killed.
    const GRACE_AFTER_DRAIN: Duration = Duration::from_secs(5);

    pub(crate) fn new(config: &Config, registry: &Registry) -> Self {
        let active = registry.tenants.iter().filter(|tenant| tenant.state == TenantState::Active);
        Self {
            assignments: active
                .map(|tenant| (tenant.port, Arc::new(Assignment::new(tenant, config))))
                .collect(),
            stop_grace: config.timeouts.drain.saturating_add(Self::GRACE_AFTER_DRAIN),
            is_closing: false,
        }
    }

    /// All workers are to stop. Each takes its own drain; one that still runs some time after `drain` is killed.
    pub(crate) fn close(&mut self, drain: Duration) {
        self.assignments.clear();
        self.stop_grace = drain.saturating_add(Self::GRACE_AFTER_DRAIN);
        self.is_closing = true;
    }
}

impl Account {
    pub(crate) fn all(config: &Config, registry: &Registry) -> Arc<[Self]> {
        let account = |tenant: &Tenant| Self {
            tenant: tenant.name.clone(),
            data_dir: data_dir(tenant, config),
            quota_bytes: tenant.limits(config).quota_bytes,
        };
        registry.tenants.iter().map(account).collect()
    }
}

fn data_dir(tenant: &Tenant, config: &Config) -> PathBuf {
    let data_dir = tenant.directory(&config.gateway.data_root);
    std::path::absolute(&data_dir).unwrap_or(data_dir)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
