//! Config and registry as one immutable snapshot for lookups. A request keeps the snapshot that it starts with, so no request
//! sees half of a reload.

pub(crate) mod reload;

pub(crate) mod activity;
mod gauges;

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use sq_shared::config::Config;
use sq_shared::config_source::ConfigSource;
use sq_shared::registry::{Key, Registry, Tenant, TenantState};
use sq_shared::tenant::TenantName;
use sq_shared::token::TokenDigest;
use sq_shared::toml_reader::Mistakes;

use activity::TenantActivity;

use crate::cors::CorsPolicy;
use crate::limits::{ClientLimits, TenantLimiter};

/// The current snapshot. Readers never wait.
pub(crate) type SharedDirectory = Arc<ArcSwap<Directory>>;

/// Config and registry, indexed for lookups.
pub(crate) struct Directory {
    pub config: Config,
    pub client_limits: ClientLimits,
    pub cors: CorsPolicy,
    /// The registry as it was read, for the admin API.
    pub registry: Registry,
    by_digest: HashMap<TokenDigest, (Arc<DirectoryTenant>, usize)>,
    tenants: HashMap<TenantName, Arc<DirectoryTenant>>,
}

/// A tenant as the request path needs it.
pub(crate) struct DirectoryTenant {
    pub name: TenantName,
    pub state: TenantState,
    /// The address of its worker.
    pub upstream: SocketAddr,
    /// The same as the `Host` of forwarded requests.
    pub upstream_host: HeaderValue,
    /// Keeps its upstream connections apart from those of a tenant that had the slot before.
    pub connection_group: u64,
    /// The name of a `[plan.*]` in the config.
    pub plan: Option<String>,
    /// Its quota; `None` is no limit.
    pub quota_bytes: Option<u64>,
    pub limiter: TenantLimiter,
    pub activity: Arc<TenantActivity>,
    pub keys: Vec<Key>,
}

impl Directory {
    /// Reads config and registry at the gateway's start.
    pub(crate) fn load(source: &ConfigSource) -> Result<Self, Mistakes> {
        let (config, registry) = source.load()?;
        Ok(Self::new(config, registry, None))
    }

    /// Builds a snapshot. What was used of the previous snapshot's limits still counts: a reload resets only a rate that it
    /// changes.
    pub(crate) fn new(config: Config, registry: Registry, previous: Option<&Self>) -> Self {
        let tenants: HashMap<TenantName, Arc<DirectoryTenant>> = registry
            .tenants
            .iter()
            .map(|tenant| (tenant.name.clone(), Arc::new(DirectoryTenant::new(tenant, &config, previous))))
            .collect();
        let mut by_digest = HashMap::new();
        for tenant in tenants.values() {
            for (index, key) in tenant.keys.iter().enumerate() {
                by_digest.insert(key.sha256, (Arc::clone(tenant), index));
            }
        }
        Self {
            client_limits: ClientLimits::new(
                &config.limits,
                previous.map(|directory| &directory.client_limits),
            ),
            cors: CorsPolicy::new(&config.cors),
            by_digest,
            tenants,
            registry,
            config,
        }
    }

    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        self.config == other.config && self.registry == other.registry
    }

    /// The tenant of a key, and the key's index.
    ///
    /// The time of the lookup depends on the digest, and tells an attacker nothing: the map compares bits of a SipHash,
    /// under a secret key, of the digest of the guess. An attacker who knew how far that digest agrees with a stored one
    /// could still not construct a guess that agrees further, because SHA-256 cannot be inverted. The final comparison of
    /// both digests takes constant time.
    pub(crate) fn find(&self, digest: &TokenDigest) -> Option<(&Arc<DirectoryTenant>, usize)> {
        self.by_digest.get(digest).map(|(tenant, index)| (tenant, *index))
    }

    /// Every tenant, in no particular order.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &Arc<DirectoryTenant>> {
        self.tenants.values()
    }

    pub(crate) fn tenant(&self, name: &str) -> Option<&Arc<DirectoryTenant>> {
        self.tenants.get(name)
    }

    pub(crate) fn tenant_count(&self) -> usize {
        self.tenants.len()
    }
}

impl DirectoryTenant {
    fn new(tenant: &Tenant, config: &Config, previous: Option<&Directory>) -> Self {
        let limits = tenant.limits(config);
        let earlier = previous.and_then(|directory| directory.tenants.get(&tenant.name));
        let limiter = TenantLimiter::new(&limits, earlier.map(|earlier| &earlier.limiter));
        let upstream = SocketAddr::new(config.pool.slot_address, tenant.port);
        Self {
            name: tenant.name.clone(),
            state: tenant.state,
            upstream,
            upstream_host: HeaderValue::try_from(upstream.to_string())
                .unwrap_or(HeaderValue::from_static("worker")),
            connection_group: BuildHasherDefault::<DefaultHasher>::default().hash_one(&tenant.name),
            plan: tenant.plan.clone(),
            quota_bytes: limits.quota_bytes,
            limiter,
            activity: earlier.map(|earlier| Arc::clone(&earlier.activity)).unwrap_or_default(),
            keys: tenant.keys.clone(),
        }
    }
}
