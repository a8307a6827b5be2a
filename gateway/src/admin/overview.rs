//! `GET /overview`: everything that the status page shows, as JSON. It needs no key: it contains the tenants' names, slots,
//! plans, states, sizes and counts, but no key and no stored text. The listener is on loopback, and `middleware` refuses
//! requests from other sites' pages; with `gateway.admin_allow_remote`, every client that reaches the port can read it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use serde::Serialize;
use sq_shared::clock;
use sq_shared::tenant::TenantName;
use tokio::sync::Mutex;

use super::Admin;
use super::pool::{self, PoolStatus, Slot, WorkerState};
use super::refusal::Refusal;
use crate::directory::{Directory, DirectoryTenant};
use crate::metrics::Latency;

/// How old an overview may be. A page polls every two seconds; the cache lets many pages cost as much as one.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Builds the overview, and keeps the latest one.
#[derive(Clone)]
pub(super) struct OverviewCache {
    admin: Admin,
    latest: Arc<Mutex<Option<Latest>>>,
}

struct Latest {
    built: Instant,
    /// The snapshot that it shows; a newer one makes it stale at once.
    directory: Arc<Directory>,
    json: Bytes,
}

#[derive(Serialize)]
struct Overview<'d> {
    /// When it was built, in milliseconds since 1970.
    time_ms: u64,
    version: &'static str,
    slots: Slots,
    pool: Pool,
    /// Open client connections.
    connections: i64,
    tenants: Vec<Tenant<'d>>,
    requests_total: u64,
    /// Rejected requests by code, without codes that did not occur.
    rejected: BTreeMap<&'static str, u64>,
    latency: Latency,
}

#[derive(Serialize)]
struct Slots {
    first: u16,
    last: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Pool {
    Ok,
    Unreachable,
    /// `pool.status_listen` is off.
    Off,
}

#[derive(Serialize)]
struct Tenant<'d> {
    name: &'d str,
    port: u16,
    state: &'static str,
    plan: Option<&'d str>,
    /// `None` if the pool reports no such slot.
    worker: Option<WorkerState>,
    storage_bytes: Option<u64>,
    /// `None` for no limit.
    quota_bytes: Option<u64>,
    requests: u64,
    rejected: u64,
    in_flight: usize,
    starts: u64,
    crashes: u64,
    /// Seconds since 1970.
    last_request_s: Option<i64>,
}

impl OverviewCache {
    pub(super) fn new(admin: Admin) -> Self {
        Self { admin, latest: Arc::default() }
    }

    /// The overview as JSON, not older than [`MAX_AGE`]. Concurrent requests wait for the same one.
    pub(super) async fn json(&self) -> Result<Bytes, Refusal> {
        let mut latest = self.latest.lock().await;
        let directory = self.admin.directory.load_full();
        if let Some(latest) = latest.as_ref()
            && latest.built.elapsed() < MAX_AGE
            && Arc::ptr_eq(&latest.directory, &directory)
        {
            return Ok(latest.json.clone());
        }
        let pool = pool::fetch_status(directory.config.pool.status_listen).await;
        let overview = Overview::new(&self.admin, &directory, pool.as_ref());
        let json = serde_json::to_vec(&overview);
        let json = json.map_err(|error| Refusal::internal(&error, "failed to encode the overview"))?;
        let json = Bytes::from(json);
        *latest = Some(Latest { built: Instant::now(), directory, json: json.clone() });
        Ok(json)
    }
}

impl<'d> Overview<'d> {
    fn new(admin: &Admin, directory: &'d Directory, pool: Option<&PoolStatus>) -> Self {
        let slots = pool.map(|pool| pool.slots.as_slice()).unwrap_or_default();
        let slot_of: HashMap<&TenantName, &Slot> = slots.iter().map(|slot| (&slot.tenant, slot)).collect();
        let shown = directory.tenants().map(|tenant| {
            let slot = slot_of.get(&tenant.name).copied();
            let storage_bytes = pool.and_then(|pool| pool.storage_bytes(&tenant.name, slot));
            Tenant::new(tenant, slot, storage_bytes)
        });
        let mut tenants: Vec<Tenant<'_>> = shown.collect();
        tenants.sort_unstable_by_key(|tenant| tenant.port);
        let latency = admin.metrics.latency();
        Self {
            time_ms: u64::try_from(clock::since_1970().as_millis()).unwrap_or(u64::MAX),
            version: env!("CARGO_PKG_VERSION"),
            slots: Slots {
                first: *directory.config.gateway.slots.start(),
                last: *directory.config.gateway.slots.end(),
            },
            pool: match (directory.config.pool.status_listen, pool) {
                (None, _) => Pool::Off,
                (Some(_), None) => Pool::Unreachable,
                (Some(_), Some(_)) => Pool::Ok,
            },
            connections: admin.metrics.connections.get(),
            tenants,
            // Every request is counted in the histogram.
            requests_total: latency.count,
            rejected: admin.metrics.rejected_by_code().filter(|(_, count)| *count > 0).collect(),
            latency,
        }
    }
}

impl<'d> Tenant<'d> {
    fn new(tenant: &'d DirectoryTenant, slot: Option<&Slot>, storage_bytes: Option<u64>) -> Self {
        Self {
            name: tenant.name.as_str(),
            port: tenant.upstream.port(),
            state: tenant.state.as_str(),
            plan: tenant.plan.as_deref(),
            worker: slot.map(|slot| slot.worker),
            storage_bytes,
            quota_bytes: tenant.quota_bytes,
            requests: tenant.activity.requests(),
            rejected: tenant.activity.rejected(),
            in_flight: tenant.limiter.in_flight(),
            starts: slot.map_or(0, |slot| slot.starts),
            crashes: slot.map_or(0, |slot| slot.crashes),
            last_request_s: tenant.activity.last_request_s(),
        }
    }
}
