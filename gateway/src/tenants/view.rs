//! A tenant as `tenants list|show` and the admin API show it.

use serde::Serialize;
use sq_shared::clock::rfc3339;
use sq_shared::config::Config;
use sq_shared::registry::{Key, Tenant};
use utoipa::ToSchema;

/// A tenant with its effective limits.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(crate) struct TenantView {
    /// The tenant's name.
    #[schema(example = "carol", pattern = "^[a-z][a-z0-9-]{0,62}$")]
    pub name: String,
    /// Its slot's port.
    #[schema(example = 1343)]
    pub port: u16,
    /// Whether it is served: `active`, `reserved` or `suspended`.
    #[schema(example = "active")]
    pub state: &'static str,
    /// Its plan.
    #[schema(example = "founding")]
    pub plan: Option<String>,
    /// The directory of its phexts.
    #[schema(example = "/srv/sq/data/carol")]
    pub data_dir: String,
    /// Its rate limit; null for none.
    #[schema(example = "600/min")]
    pub per_tenant: Option<String>,
    /// Its in-flight limit; null for none.
    #[schema(example = 64)]
    pub in_flight: Option<usize>,
    /// The quota for the total size of its phexts; null for none.
    #[schema(example = 1_073_741_824)]
    pub quota_bytes: Option<u64>,
    /// Its keys by id; the keys themselves are not stored.
    pub keys: Vec<KeyView>,
}

/// One key of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Key)]
pub(crate) struct KeyView {
    /// Its id in logs and commands.
    #[schema(example = "k1")]
    pub id: String,
    /// `write` (and read), or `read`.
    #[schema(example = "write")]
    pub scope: &'static str,
    /// When it expires; null for never.
    #[schema(example = "2027-01-01T00:00:00Z", format = DateTime)]
    pub expires: Option<String>,
    /// `expires` in seconds since 1970.
    #[schema(example = 1_798_761_600)]
    pub expires_s: Option<i64>,
    /// Whether it has expired.
    pub expired: bool,
}

impl TenantView {
    /// `now_s`, in seconds since 1970, decides which keys have expired.
    pub(crate) fn new(tenant: &Tenant, config: &Config, now_s: i64) -> Self {
        let limits = tenant.limits(config);
        Self {
            name: tenant.name.to_string(),
            port: tenant.port,
            state: tenant.state.as_str(),
            plan: tenant.plan.clone(),
            data_dir: tenant.directory(&config.gateway.data_root).to_string_lossy().into_owned(),
            per_tenant: limits.per_tenant.map(|rate| rate.to_string()),
            in_flight: limits.in_flight,
            quota_bytes: limits.quota_bytes,
            keys: tenant.keys.iter().map(|key| KeyView::new(key, now_s)).collect(),
        }
    }
}

impl KeyView {
    fn new(key: &Key, now_s: i64) -> Self {
        Self {
            id: key.id.clone(),
            scope: key.scope.as_str(),
            expires: key.expires_s.and_then(rfc3339),
            expires_s: key.expires_s,
            expired: !key.is_valid_at(now_s),
        }
    }
}
