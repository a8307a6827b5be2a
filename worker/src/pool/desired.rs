//! What should be: which tenant belongs on which slot, as the config and the registry say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sq_shared::config::Config;
use sq_shared::registry::{Registry, Tenant, TenantState};
use sq_shared::tenant::TenantName;

use crate::settings::WorkerSettings;

/// The tenant of a slot, and what its worker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Whose slot it is.
    pub tenant: TenantName,
    /// The tenant's directory, absolute.
    pub data_dir: PathBuf,
    /// What may change while the worker runs.
    pub settings: WorkerSettings,
}

/// A tenant of the registry, active or not: where its phexts are, and how much they may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Whose it is.
    pub tenant: TenantName,
    /// The tenant's directory, absolute.
    pub data_dir: PathBuf,
    /// All its phexts together; `None` is no limit.
    pub quota_bytes: Option<u64>,
}

/// What should be, on all slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// By port; active tenants only. No directory is another's or lies inside it.
    pub assignments: BTreeMap<u16, Arc<Assignment>>,
    /// How long a worker may take to end before it is killed.
    pub stop_grace: Duration,
    /// The pool itself stops: every worker goes, and connections wait for the next pool.
    pub is_closing: bool,
}

impl Assignment {
    /// Whether a worker of the one may go on as a worker of the other: only settings differ.
    pub fn is_same_worker(&self, other: &Self) -> bool {
        self.tenant == other.tenant && self.data_dir == other.data_dir
    }

    /// Whether the two directories must not be open at once: they are the same, or one holds the other.
    pub fn shares_directory(&self, other: &Self) -> bool {
        self.data_dir.starts_with(&other.data_dir) || other.data_dir.starts_with(&self.data_dir)
    }

    fn of(tenant: &Tenant, config: &Config) -> Self {
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
    /// What a worker has beyond its own drain, which is the config's too: one that is merely slow ends by
    /// itself.
    const GRACE_AFTER_DRAIN: Duration = Duration::from_secs(5);

    /// What a config and a registry ask for.
    pub fn new(config: &Config, registry: &Registry) -> Self {
        let active = registry.tenants.iter().filter(|tenant| tenant.state == TenantState::Active);
        Self {
            assignments: active
                .map(|tenant| (tenant.port, Arc::new(Assignment::of(tenant, config))))
                .collect(),
            stop_grace: config.timeouts.drain.saturating_add(Self::GRACE_AFTER_DRAIN),
            is_closing: false,
        }
    }

    /// From now on every worker goes. Each takes its own drain; one that has not gone a while after `drain`
    /// is killed.
    pub fn close(&mut self, drain: Duration) {
        self.assignments.clear();
        self.stop_grace = drain.saturating_add(Self::GRACE_AFTER_DRAIN);
        self.is_closing = true;
    }
}

impl Account {
    /// Every tenant of a registry.
    pub fn all(config: &Config, registry: &Registry) -> Arc<[Self]> {
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
