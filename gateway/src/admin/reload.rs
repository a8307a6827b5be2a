//! `POST /admin/reload`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use sq_shared::process::watch::Reason;
use utoipa::ToSchema;

use super::Admin;
use super::refusal::Refusal;

/// What applies now.
#[derive(Serialize, ToSchema)]
pub(super) struct Reloaded {
    /// How many tenants the registry has, in all states.
    #[schema(example = 2)]
    tenants: usize,
}

/// Reads the config and the registry now, and applies them.
#[utoipa::path(post, path = "/admin/reload", operation_id = "reload", tag = "reload", responses(
    (status = 200, description = "The config and the registry are applied.", body = Reloaded),
    (status = 422, description = "The files have mistakes: `mistakes` lists each. The previous config and registry stay applied."),
))]
pub(super) async fn reload(State(admin): State<Admin>) -> Result<Json<Reloaded>, Refusal> {
    admin.run(|reloader| Ok(Json(Reloaded { tenants: reloader.reload(Reason::Admin)? }))).await
}
