//! Which command a request is, and where its worker listens.

use std::net::SocketAddr;
use std::time::Duration;

use sq_shared::limits::UPSTREAM_IDLE_TIMEOUT;
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

/// The way to a tenant's worker, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub struct Upstream {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Whose connections may be used again: those of this tenant alone. Were its slot given to another, an old connection
    /// would not be found.
    pub(super) group: u64,
    /// How long a connection may have lain idle. A worker that is about to be let go must not find one of ours idle.
    pub(super) idle_timeout: Duration,
    /// How long the worker may take for the head of its answer, once it has the whole request, and how long it may hold up
    /// either body.
    pub(super) answer: Duration,
}

/// The tenant's worker.
pub fn upstream(tenant: &AuthenticatedTenant, directory: &Directory) -> Upstream {
    Upstream {
        address: tenant.tenant().upstream,
        group: tenant.tenant().connection_group,
        idle_timeout: upstream_idle_timeout(directory),
        answer: directory.config.timeouts.answer,
    }
}

/// How long a connection to a worker may lie idle.
pub fn upstream_idle_timeout(directory: &Directory) -> Duration {
    UPSTREAM_IDLE_TIMEOUT.min(directory.config.pool.idle_timeout / 2)
}
