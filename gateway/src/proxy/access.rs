//! One line per request, under the log target `access`; `RUST_LOG=access=off` turns it off. It never contains the query, which
//! may hold a scroll, or the key. `duration_us` is the request's whole time here, `worker_us` the part of it that the gateway
//! waited for the worker ([`super::worker_wait`]).

use std::time::Duration;

use pingora::protocols::http::v1::server::HttpSession as Session;
use sq_shared::problem::Code;

use super::authenticate::AuthenticatedTenant;
use super::context::Context;
use super::target::{logged_method, logged_path, origin_form, split_target};
use crate::listen::Peer;
use crate::metrics::RequestSummary;

/// Logs a request that the proxy served. `status` is 0 if no answer was sent.
pub(crate) fn log(
    session: &Session,
    ctx: &Context<'_>,
    tenant: Option<&AuthenticatedTenant>,
    summary: &RequestSummary<'_>,
) {
    if !tracing::enabled!(target: "access", tracing::Level::INFO) {
        return;
    }
    let request = session.req_header();
    let (path, _) = split_target(origin_form(request.raw_path()));
    let (path, method) = (logged_path(&String::from_utf8_lossy(path)), logged_method(&request.method));
    let (bytes_in, bytes_out) = (session.body_bytes_read(), session.body_bytes_sent());
    let client = ctx.client.to_string();
    let RequestSummary { status, code, duration, upstream, .. } = *summary;
    let code = code.map(Code::as_str).unwrap_or_default();
    let (duration_us, worker_us) = (whole_us(duration), upstream.map(whole_us));
    let request_id = ctx.request_id_text();
    let trace_id = ctx.trace.passed_on().map(|trace| trace.trace_id.to_string());
    let key = tenant.map_or("", AuthenticatedTenant::key_id);
    let tenant = tenant.map_or("", AuthenticatedTenant::name);
    tracing::info!(
        target: "access",
        request_id, client, tenant, key, method, path, status, code, bytes_in, bytes_out, duration_us, worker_us,
        trace_id,
    );
}

pub(crate) fn log_refused_at_edge(peer: Peer, request_id: &str, summary: &RequestSummary<'_>) {
    let client = peer.ip().to_string();
    let RequestSummary { status, code, duration, .. } = *summary;
    let code = code.map(Code::as_str).unwrap_or_default();
    let duration_us = whole_us(duration);
    tracing::info!(target: "access", request_id, client, status, code, duration_us);
}

fn whole_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
