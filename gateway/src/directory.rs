//! What the request path looks things up in: config and registry as one immutable snapshot. A request
//! takes the snapshot once and keeps it to its end, so no request sees half of a reload.

pub mod activity;
pub mod reload;

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use sq_shared::config::Config;
use sq_shared::registry::{Key, Registry, Tenant, TenantState};
use sq_shared::tenant::TenantName;
use sq_shared::token::TokenDigest;

use activity::TenantActivity;

use crate::proxy::cors::CorsPolicy;
use crate::proxy::limit::{ClientLimits, TenantLimiter};

/// The snapshot in force; readers never wait.
pub type SharedDirectory = Arc<ArcSwap<Directory>>;

/// Config and registry, ready for lookups.
pub struct Directory {
    /// The config.
    pub config: Config,
    /// Limits by client address.
    pub client_limits: ClientLimits,
    /// Which origins a browser may call from.
    pub cors: CorsPolicy,
    /// The registry as it was read, for the operator.
    pub registry: Registry,
    by_digest: HashMap<TokenDigest, (Arc<DirectoryTenant>, usize)>,
    tenants: HashMap<TenantName, Arc<DirectoryTenant>>,
}

/// A tenant as a request needs it.
pub struct DirectoryTenant {
    /// Its name.
    pub name: TenantName,
    /// Whether it is served.
    pub state: TenantState,
    /// Where its worker listens.
    pub upstream: SocketAddr,
    /// The same as the `Host` of what is forwarded.
    pub upstream_host: HeaderValue,
    /// Keeps its connections apart from those of a tenant that had the slot before.
    pub connection_group: u64,
    /// A `[plan.*]` of the config.
    pub plan: Option<String>,
    /// How much it may store; `None` is no limit.
    pub quota_bytes: Option<u64>,
    /// Its rate and its requests in flight.
    pub limiter: TenantLimiter,
    /// What it has done.
    pub activity: Arc<TenantActivity>,
    keys: Vec<Key>,
}

impl Directory {
    /// Builds a snapshot. What was used of the limits of the one before counts on: a reload gives nobody a fresh
    /// budget, unless it changes that very rate.
    pub fn new(config: Config, registry: Registry, previous: Option<&Self>) -> Self {
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

    /// Whether both were made of the same config and the same registry.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        self.config == other.config && self.registry == other.registry
    }

    /// Whose key this is, and which of the tenant's keys.
    ///
    /// How long the probe of the map takes hangs on the digest, and tells a guesser nothing: what it compares on
    /// its way are bits of a SipHash under a secret key, of the digest of the guess. Even who learned how far that
    /// digest agrees with a stored one could make no guess whose digest agrees further: SHA-256 has no such way
    /// back. The last comparison, of both whole digests, takes the same time wherever they differ first.
    pub fn find(&self, digest: &TokenDigest) -> Option<(&Arc<DirectoryTenant>, usize)> {
        self.by_digest.get(digest).map(|(tenant, index)| (tenant, *index))
    }

    /// Every tenant, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<DirectoryTenant>> {
        self.tenants.values()
    }

    /// The tenant of this name.
    pub fn tenant(&self, name: &str) -> Option<&Arc<DirectoryTenant>> {
        self.tenants.get(name)
    }

    /// Whether there is a tenant of this name.
    pub fn has_tenant(&self, name: &str) -> bool {
        self.tenants.contains_key(name)
    }

    /// How many tenants there are, in every state.
    pub fn tenant_count(&self) -> usize {
        self.tenants.len()
    }
}

impl DirectoryTenant {
    /// One of its keys.
    pub fn key(&self, index: usize) -> Option<&Key> {
        self.keys.get(index)
    }

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
