//! Writes the answers that the gateway makes itself, and the fields that every answer has.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::v1::server::HttpSession as Session;
use sq_shared::headers::X_REQUEST_ID;

use super::context::Context;
use crate::limits::rate_limit_fields;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// The capacity for the fields of a gateway's answer.
const FIELD_COUNT: usize = 12;

/// Writes a head and a body. A HEAD request gets the head alone.
pub(super) async fn write(
    session: &mut Session,
    ctx: &Context<'_>,
    mut head: ResponseHeader,
    body: Vec<u8>,
) -> pingora::Result<()> {
    let request = session.req_header();
    let is_head = request.method == Method::HEAD;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    add_common_fields(&mut head, &request.headers, ctx)?;
    session.write_response_header(Box::new(head)).await?;
    if !is_head {
        session.write_body(&body).await?;
    }
    session.finish_body().await.map(|_| ())
}

pub(super) async fn write_preflight(session: &mut Session, ctx: &Context<'_>) -> pingora::Result<()> {
    let mut head = ResponseHeader::build(StatusCode::NO_CONTENT, Some(FIELD_COUNT))?;
    add_common_fields(&mut head, &session.req_header().headers, ctx)?;
    for (name, value) in ctx.directory.cors.preflight_fields(&session.req_header().headers) {
        head.insert_header(name, value)?;
    }
    session.write_response_header(Box::new(head)).await
}

/// Adds the fields that every answer has, the gateway's and a worker's.
pub(super) fn add_common_fields(
    head: &mut ResponseHeader,
    request: &HeaderMap,
    ctx: &Context<'_>,
) -> pingora::Result<()> {
    head.insert_header(X_REQUEST_ID, &ctx.request_id)?;
    head.insert_header(header::CACHE_CONTROL, NO_STORE)?;
    head.insert_header("X-Content-Type-Options", NOSNIFF)?;
    let rates = [("ip", ctx.ip_rate), ("tenant", ctx.tenant_rate), ("failed-keys", ctx.failed_keys_rate)];
    if let Some((policy, state)) = rate_limit_fields(&rates) {
        head.insert_header("RateLimit-Policy", policy)?;
        head.insert_header("RateLimit", state)?;
    }
    for (name, value) in ctx.directory.cors.answer_fields(request) {
        head.insert_header(name, value)?;
    }
    Ok(())
}
