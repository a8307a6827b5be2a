//! Checks a request's route, and finds its tenant's worker.

use std::net::SocketAddr;
use std::time::Duration;

use sq_shared::limits::UPSTREAM_IDLE_TIMEOUT;
use sq_shared::route::{Methods, Route};

use super::authenticate::AuthenticatedTenant;
use crate::directory::Directory;

/// Why a request has no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("unknown route")]
    Unknown,
    #[error("wrong method")]
    Method(Methods),
    /// `/health` and `/ready` take GET and HEAD only.
    #[error("wrong method for a health check")]
    HealthMethod,
    #[error("read-only key")]
    ReadOnlyKey,
}

/// Checks that the route takes the method and the key may use it.
pub(super) fn check(route: Route, method: &str, tenant: &AuthenticatedTenant) -> Result<(), RouteError> {
    if !route.methods().allow(method) {
        return Err(RouteError::Method(route.methods()));
    }
    if route.writes() && !tenant.may_write() {
        return Err(RouteError::ReadOnlyKey);
    }
    Ok(())
}

/// A tenant's worker, and its timeouts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upstream {
    pub(super) address: SocketAddr,
    /// The tenant's group in the pool. Idle connections are reused within a group only, so if the slot goes to another tenant,
    /// the old tenant's connections are not found.
    pub(super) group: u64,
    /// How long a connection may be idle: less than the worker waits before it goes idle itself.
    pub(super) idle_timeout: Duration,
    /// How long the worker may take from the end of the request to the head of its answer, and how long it may hold up either
    /// body.
    pub(super) answer: Duration,
}

pub(super) fn upstream(tenant: &AuthenticatedTenant, directory: &Directory) -> Upstream {
    Upstream {
        address: tenant.tenant().upstream,
        group: tenant.tenant().connection_group,
        idle_timeout: upstream_idle_timeout(directory),
        answer: directory.config.timeouts.answer,
    }
}

pub(super) fn upstream_idle_timeout(directory: &Directory) -> Duration {
    UPSTREAM_IDLE_TIMEOUT.min(directory.config.pool.idle_timeout / 2)
}
