//! Which command a request is, and where its worker listens.

use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use sq_shared::limits::{BODY_WINDOW, UPSTREAM_CONNECT_TIMEOUT, UPSTREAM_IDLE_TIMEOUT};
use sq_shared::route::{Methods, Route};

use super::authenticate::AuthenticatedTenant;
use crate::directory::Directory;

/// Why a request leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No such path.
    #[error("unknown route")]
    Unknown,
    /// The path is there, the method is not.
    #[error("wrong method")]
    Method(Methods),
    /// `/health` and `/ready` are only read.
    #[error("wrong method for a health check")]
    HealthMethod,
    /// It writes, and the key only reads.
    #[error("read-only key")]
    ReadOnlyKey,
}

/// The command that the path means.
pub fn find(path: &[u8]) -> Option<Route> {
    Route::of_path(std::str::from_utf8(path).ok()?)
}

/// Whether the command takes the method, and the key may use it.
///
/// # Errors
/// It does not, or the key's scope is too small.
pub fn check(route: Route, method: &str, tenant: &AuthenticatedTenant) -> Result<(), RouteError> {
    if !route.methods().allow(method) {
        return Err(RouteError::Method(route.methods()));
    }
    if route.writes() && !tenant.may_write() {
        return Err(RouteError::ReadOnlyKey);
    }
    Ok(())
}

/// The tenant's worker. Connections are kept for one tenant alone: were a slot given to another, the
/// group key would keep an old connection from being found.
///
/// A repeat gets a new connection: the kept ones may have died with the same worker, and each would cost an
/// attempt. Under a group key of its own none is found, for `request_head` has them closed after use.
pub fn upstream(
    tenant: &AuthenticatedTenant,
    directory: &Directory,
    has_body: bool,
    is_repeat: bool,
) -> HttpPeer {
    let timeouts = &directory.config.timeouts;
    let mut peer = HttpPeer::new(tenant.tenant().upstream, false, String::new());
    let group = tenant.tenant().connection_group;
    peer.group_key = if is_repeat { !group } else { group };
    peer.options.connection_timeout = Some(UPSTREAM_CONNECT_TIMEOUT);
    // The head is emptied and given a few known fields, so there is nothing to strip.
    peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    // A worker that is about to be let go must not find one of our connections idle.
    peer.options.idle_timeout = Some(UPSTREAM_IDLE_TIMEOUT.min(directory.config.pool.idle_timeout / 2));
    // pingora restarts this clock with each piece of the body it sends, so it runs from the body's end;
    // but a client may pause between two pieces for as long as a slow body may.
    let pause = if has_body { BODY_WINDOW } else { std::time::Duration::ZERO };
    peer.options.read_timeout = Some(timeouts.answer.max(pause));
    // A head alone fits into the socket: only a body can be held up.
    peer.options.write_timeout = has_body.then_some(timeouts.answer);
    peer
}
