//! Sums up a request that has ended: for the metrics, its tenant's counters, its access line and its span.

use std::time::Instant;

use pingora::protocols::http::v1::server::HttpSession as Session;
use sq_shared::clock::now_s;

use super::authenticate::AuthenticatedTenant;
use super::context::Context;
use crate::metrics::{Metrics, NO_TENANT, RequestSummary};

pub(super) fn summarise<'t>(
    session: &Session,
    ctx: &Context<'_>,
    tenant: Option<&'t AuthenticatedTenant>,
) -> RequestSummary<'t> {
    let now = Instant::now();
    // An interim answer is not the answer.
    let head = session.response_written().filter(|head| !head.status.is_informational());
    RequestSummary {
        tenant: tenant.map_or(NO_TENANT, AuthenticatedTenant::name),
        command: ctx.command,
        status: head.map_or(0, |head| head.status.as_u16()),
        code: ctx.code,
        duration: ctx.answered.unwrap_or(now).saturating_duration_since(ctx.started),
        upstream: ctx.worker_wait.duration(now),
    }
}

/// Counts a request, in total and for its tenant.
pub(super) fn count(metrics: &Metrics, tenant: Option<&AuthenticatedTenant>, summary: &RequestSummary<'_>) {
    metrics.count_request(summary);
    if let Some(tenant) = tenant {
        tenant.tenant().activity.count(summary.code.is_some(), now_s());
    }
}
