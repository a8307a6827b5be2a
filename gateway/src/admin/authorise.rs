//! Requires the admin key for the routes that list or change tenants.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use sq_shared::credential;
use sq_shared::problem::{Code, Problem};

use super::Admin;
use super::middleware::ClientAddress;
use super::refusal::Refusal;

/// `Retry-After` while no key is set: an operator may have set one by then.
const RETRY_S: u64 = 60;

/// Passes on a request with the current config's admin key. Digests are compared in constant time.
///
/// Wrong keys are limited by address, but the right one always passes: programs of other users share the loopback
/// address, and could lock the operator out. The limit bounds the cost of guesses; that none succeeds is up to the key.
pub(super) async fn require_key(
    State(admin): State<Admin>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let directory = admin.directory.load_full();
    let Some(wanted) = directory.config.gateway.admin_key else {
        let detail = "Set gateway.admin_key_sha256 to the SHA-256 of a key of your own: without it the admin API is shut";
        return Err(Refusal(Problem::new(Code::AdminKeyNotSet, detail).retry_after_s(RETRY_S)));
    };
    let problem = match credential::read(request.headers()) {
        Ok(token) if token.digest() == wanted => return Ok(next.run(request).await),
        Ok(_) => {
            Problem::new(Code::InvalidKey, "This is not the admin's key. Tenants' keys do not open this port")
        }
        Err(error) => error.problem(),
    };
    // A request without a key, or with two, is not a guess.
    if problem.code == Code::InvalidKey
        && let Some(ClientAddress(address)) = request.extensions().get()
        && let Err(error) = directory.client_limits.charge_failed_admin_key(*address)
    {
        return Err(Refusal(error.problem()));
    }
    Err(Refusal(problem))
}
