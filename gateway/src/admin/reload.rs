//! `POST /admin/reload`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Admin;
use super::refusal::Refusal;
use crate::directory::reload::Reason;

/// What is in force now.
#[derive(Serialize, ToSchema)]
pub(super) struct Reloaded {
    /// Tenants of the registry, in every state.
    #[schema(example = 2)]
    tenants: usize,
}

/// Reads config and registry now, and puts them in force.
#[utoipa::path(post, path = "/admin/reload", operation_id = "reload", tag = "reload", responses(
    (status = 200, description = "What the files say is in force.", body = Reloaded),
    (status = 422, description = "The files have mistakes: `mistakes` lists each. What was in force goes on."),
))]
pub(super) async fn now(State(admin): State<Admin>) -> Result<Json<Reloaded>, Refusal> {
    admin.run(|reloader| Ok(Json(Reloaded { tenants: reloader.reload(Reason::Admin)? }))).await
}
