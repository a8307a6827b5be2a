//! `GET /admin/tenants/{name}/stats`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use sq_shared::clock::rfc3339;
use utoipa::ToSchema;

use super::Admin;
use super::pool::{self, WorkerState};
use super::refusal::Refusal;
use super::tenants::TenantPath;

/// A tenant's storage, requests and worker. Requests are counted since the gateway started, workers since the pool started.
#[derive(Serialize, ToSchema)]
pub(super) struct Stats {
    /// The tenant.
    #[schema(example = "carol")]
    name: String,
    /// Whether it is served.
    #[schema(example = "active")]
    state: &'static str,
    /// The total size of its phexts; null if the pool does not report it.
    #[schema(example = 4096)]
    storage_bytes: Option<u64>,
    /// The quota for that size; null for none.
    #[schema(example = 1_073_741_824)]
    quota_bytes: Option<u64>,
    /// Requests with a valid key of the tenant.
    #[schema(example = 12)]
    requests: u64,
    /// Requests that were answered with an error.
    #[schema(example = 1)]
    rejections: u64,
    /// Requests that are not answered yet.
    #[schema(example = 0)]
    in_flight: usize,
    /// The state of its worker; null if the pool does not report it.
    worker: Option<WorkerState>,
    /// How often its worker was started.
    #[schema(example = 1)]
    worker_starts: Option<u64>,
    /// How often its worker crashed.
    #[schema(example = 0)]
    worker_crashes: Option<u64>,
    /// When its last request ended; null before the first.
    #[schema(example = "2026-12-31T23:59:59Z", format = DateTime)]
    last_active: Option<String>,
}

/// A tenant's storage, requests and worker.
#[utoipa::path(get, path = "/admin/tenants/{name}/stats", operation_id = "show_stats", tag = "tenants", params(("name" = String, Path, example = "carol")),
    responses((status = 200, description = "The tenant's numbers.", body = Stats), (status = 404, description = "`unknown_tenant`.")))]
pub(super) async fn show(
    State(admin): State<Admin>,
    TenantPath(name): TenantPath,
) -> Result<Json<Stats>, Refusal> {
    let directory = admin.directory.load_full();
    let tenant = directory.tenant(name.as_str()).ok_or_else(Refusal::unknown_tenant)?;
    let pool = pool::fetch_status(directory.config.pool.status_listen).await.unwrap_or_default();
    let slot = pool.slots.iter().find(|slot| slot.tenant == name);
    Ok(Json(Stats {
        name: name.to_string(),
        state: tenant.state.as_str(),
        storage_bytes: pool.storage_bytes(&name, slot),
        quota_bytes: tenant.quota_bytes,
        requests: tenant.activity.requests(),
        rejections: tenant.activity.rejected(),
        in_flight: tenant.limiter.in_flight(),
        worker: slot.map(|slot| slot.worker),
        worker_starts: slot.map(|slot| slot.starts),
        worker_crashes: slot.map(|slot| slot.crashes),
        last_active: tenant.activity.last_request_s().and_then(rfc3339),
    }))
}
