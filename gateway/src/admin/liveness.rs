//! `GET /health` and `GET /ready`, as on the clients' port.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Admin;
use super::refusal::Refusal;
use crate::proxy::health;

/// The gateway's health.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
    /// How many tenants the registry has, in all states.
    #[schema(example = 2)]
    tenants: usize,
}

/// Whether the gateway runs.
#[utoipa::path(get, path = "/health", tag = "watch", responses((status = 200, description = "It runs.", body = Health)))]
pub(super) async fn health(State(admin): State<Admin>) -> Json<Health> {
    Json(Health { status: "ok", tenants: admin.directory.load().tenant_count() })
}

/// Whether requests would be served.
#[utoipa::path(get, path = "/ready", tag = "watch", responses(
    (status = 200, description = "They would be served.", body = Health),
    (status = 503, description = "They would not be served; `detail` says why."),
))]
pub(super) async fn ready(state: State<Admin>) -> Result<Json<Health>, Refusal> {
    let directory = state.directory.load_full();
    match health::not_ready(&directory.config, &state.metrics).await {
        None => Ok(health(state).await),
        Some(refusal) => Err(Refusal(refusal.problem())),
    }
}
