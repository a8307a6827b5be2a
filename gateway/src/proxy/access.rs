//! One line a request, under the log target `access`: `RUST_LOG=access=off` turns it off. The query and
//! the key are never in it: a query holds scrolls.

use pingora::proxy::Session;

use super::authenticate::AuthenticatedTenant;
use super::client_ip::Peer;
use super::context::Context;
use super::target::{origin_form, split_target};

/// Writes the line of a request that pingora has handled. `status` is 0 when no answer was sent.
pub fn log(session: &Session, ctx: &Context) {
    if !tracing::enabled!(target: "access", tracing::Level::INFO) {
        return;
    }
    let status = session.response_written().map_or(0, |head| head.status.as_u16());
    let request = session.req_header();
    let (path, _) = split_target(origin_form(request.raw_path()));
    let path = String::from_utf8_lossy(path).into_owned();
    let method = request.method.as_str().to_owned();
    let (bytes_in, bytes_out) = (session.body_bytes_read(), session.body_bytes_sent());
    let duration_us = u64::try_from(ctx.started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let client = ctx.client.map(|client| client.to_string()).unwrap_or_default();
    let code = ctx.code.map(|code| code.as_str()).unwrap_or_default();
    let request_id = ctx.request_id_text().to_owned();
    let tenant = ctx.tenant();
    let key = tenant.map_or("", AuthenticatedTenant::key_id);
    let tenant = tenant.map_or("", |tenant| tenant.tenant().name.as_str());
    tracing::info!(
        target: "access",
        request_id, client, tenant, key, method, path, status, code, bytes_in, bytes_out, duration_us,
    );
}

/// Writes the line of a request that the edge refused.
pub fn log_refused_at_edge(peer: Peer, request_id: &str, status: u16, code: &str) {
    let client = peer.ip().to_string();
    tracing::info!(target: "access", request_id, client, status, code);
}
