//! The operator's key: whoever changes or lists tenants has it.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use sq_shared::credential;
use sq_shared::problem::{Code, Problem};

use super::Admin;
use super::envelope::Client;
use super::refusal::Refusal;

/// After how many seconds an operator may have set a key.
const RETRY_S: u64 = 60;

/// Passes a request on that has the admin's key, as the config in force says. The digests are compared, in the same
/// time wherever they differ.
///
/// Wrong keys are limited by address, and the right one always passes: programs of other users share loopback with the
/// operator, and could lock them out. So the limit bounds what guesses cost here; that none succeeds is up to the key.
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
    // A request without a key is no guess; of two, none is compared.
    if problem.code == Code::InvalidKey
        && let Some(Client(address)) = request.extensions().get()
        && let Err(error) = directory.client_limits.charge_failed_admin_key(*address)
    {
        return Err(Refusal(error.problem()));
    }
    Err(Refusal(problem))
}
