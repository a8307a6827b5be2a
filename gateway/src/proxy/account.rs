//! What a request has been, once it has ended: for the counters, its tenant's account and its access line.

use std::time::Instant;

use pingora::protocols::http::v1::server::HttpSession as Session;
use sq_shared::clock::now_s;

use super::context::Context;
use crate::metrics::{Ended, Metrics, NO_TENANT};

/// Sums a request up.
pub fn of<'c>(session: &Session, ctx: &'c Context) -> Ended<'c> {
    let now = Instant::now();
    // An interim answer is none.
    let head = session.response_written().filter(|head| !head.status.is_informational());
    Ended {
        tenant: ctx.tenant().map_or(NO_TENANT, |tenant| tenant.tenant().name.as_str()),
        command: ctx.command,
        status: head.map_or(0, |head| head.status.as_u16()),
        code: ctx.code,
        duration: ctx.answered.unwrap_or(now).saturating_duration_since(ctx.started),
        upstream: ctx.worker_wait.duration(now),
    }
}

/// Counts a request, also for its tenant.
pub fn count(metrics: &Metrics, ctx: &Context, ended: &Ended<'_>) {
    metrics.ended(ended);
    if let Some(tenant) = ctx.tenant() {
        tenant.tenant().activity.note(ended.code.is_some(), now_s());
    }
}
