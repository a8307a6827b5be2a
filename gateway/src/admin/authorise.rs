//! The operator's key: whoever changes or lists tenants has it.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use sq_shared::credential;
use sq_shared::problem::{Code, Problem};

use super::Admin;
use super::refusal::Refusal;

/// After how many seconds an operator may have set a key.
const RETRY_S: u64 = 60;

/// Passes a request on that has the admin's key, as the config in force says. The digests are compared, in the same
/// time wherever they differ.
pub(super) async fn require_key(
    State(admin): State<Admin>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let Some(wanted) = admin.directory.load().config.gateway.admin_key else {
        let detail = "Set gateway.admin_key_sha256 to the SHA-256 of a key of your own: without it the admin API is shut";
        return Err(Refusal(Problem::new(Code::AdminKeyNotSet, detail).retry_after_s(RETRY_S)));
    };
    let token = credential::read(request.headers()).map_err(|error| Refusal(error.problem()))?;
    if token.digest() != wanted {
        let detail = "This is not the admin's key. Tenants' keys are none here";
        return Err(Refusal(Problem::new(Code::InvalidKey, detail)));
    }
    Ok(next.run(request).await)
}
