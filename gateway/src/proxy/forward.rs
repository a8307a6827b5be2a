//! What goes to the worker and what comes back. The fields of both heads are a few known ones, set anew; no
//! byte of the client's head, and none of the worker's, passes through unread.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use sq_shared::headers::{X_REQUEST_ID, lookup};
use sq_shared::trace_context::TraceState;

use super::authenticate::AuthenticatedTenant;
use super::context::{Admitted, Context};
use super::limit::rate_limit_fields;
use super::repeat::WriteKeys;
use super::target::origin_form;
use super::worker_answer;
use crate::traces::Trace;

/// What a client's request keeps on its way in, beside the key and the id, which are set anew.
const REQUEST_FIELDS: [HeaderName; 3] =
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// Room for the fields that a worker is usually sent.
const REQUEST_FIELD_COUNT: usize = 8;

/// Room for the fields of a usual answer, pingora's two among them; more make the maps grow.
const ANSWER_FIELD_COUNT: usize = 12;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Builds the head that the worker gets. Of the client's it keeps the method and the target, which are read and checked
/// already.
///
/// # Errors
/// The head cannot be built; no request that passed the checks makes that happen.
pub fn request_head(
    client: &RequestHeader,
    admitted: &Admitted,
    request_id: &HeaderValue,
    trace: Trace,
) -> pingora::Result<RequestHeader> {
    let tenant = &admitted.tenant;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = client.method.clone();
    parts.uri = client.uri.clone();
    // No field of the client's passes but by one of the lines below.
    let fields = &mut parts.headers;
    fields.reserve(REQUEST_FIELD_COUNT);
    fields.insert(header::HOST, tenant.tenant().upstream_host.clone());
    fields.insert(header::AUTHORIZATION, bearer(tenant));
    fields.insert(lookup::X_REQUEST_ID, request_id.clone());
    for name in REQUEST_FIELDS {
        if let Some(value) = client.headers.get(&name) {
            fields.insert(name, value.clone());
        }
    }
    add_trace(fields, client, trace);
    if let Some(keys) = &admitted.keys {
        add_write_fields(fields, client, keys);
    } else if admitted.audited.route().is_conditional_read() {
        add_condition(fields, client, header::IF_NONE_MATCH);
    }
    // The head keeps no upper and lower case: our worker and SQ's compare names without, and it is half the work.
    let mut head = RequestHeader::from(parts);
    let (target, origin_form) = (client.raw_path(), origin_form(client.raw_path()));
    if origin_form.len() < target.len() {
        head.set_raw_path(origin_form)?;
    }
    Ok(head)
}

/// Which trace the request belongs to. What other systems noted goes with the client's trace alone.
fn add_trace(fields: &mut HeaderMap, client: &RequestHeader, trace: Trace) {
    if let Some(parent) = trace.goes_on() {
        fields.insert(lookup::TRACEPARENT, parent.header_value());
    }
    if trace.of_client.is_some()
        && let Some(state) = TraceState::of_request(&client.headers)
    {
        fields.insert(lookup::TRACESTATE, state.header_value().clone());
    }
}

/// What only a write has: its conditions and its names.
fn add_write_fields(fields: &mut HeaderMap, client: &RequestHeader, keys: &WriteKeys) {
    add_condition(fields, client, header::IF_MATCH);
    add_condition(fields, client, header::IF_NONE_MATCH);
    if let Some(key) = &keys.of_client {
        fields.insert(lookup::IDEMPOTENCY_KEY, key.clone());
    }
    fields.insert(lookup::X_SQ_REPEAT_KEY, keys.own.clone());
}

/// One of the client's conditions, if it has it.
fn add_condition(fields: &mut HeaderMap, client: &RequestHeader, name: HeaderName) {
    if let Some(condition) = condition(&client.headers, &name) {
        fields.insert(name, condition);
    }
}

/// The client's list of tags. One that stands in many fields is the same in one field (RFC 9110, 5.3), and so takes no more of
/// the fields that the worker has room for.
fn condition(client: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = client.get_all(name).iter();
    let first = values.next()?;
    let mut list = first.as_bytes().to_vec();
    for value in values {
        list.extend_from_slice(b", ");
        list.extend_from_slice(value.as_bytes());
    }
    Some(HeaderValue::from_bytes(&list).unwrap_or_else(|_| first.clone()))
}

fn bearer(tenant: &AuthenticatedTenant) -> HeaderValue {
    let text = ["Bearer ", tenant.token().expose()].concat();
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Builds the head that the client gets from the worker's, which was checked.
///
/// # Errors
/// A field cannot be set; the fields are ours.
pub fn answer_head(
    worker: &ResponseHeader,
    request: &RequestHeader,
    ctx: &Context,
) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(worker.status, Some(ANSWER_FIELD_COUNT))?;
    for (name, value) in worker_answer::fields(worker) {
        head.insert_header(name, value)?;
    }
    if goes_in_chunks(worker, request) {
        head.insert_header("Transfer-Encoding", "chunked")?;
    }
    // A write that only the gateway repeated is an ordinary one to its client.
    if ctx.keys().is_some_and(|keys| keys.of_client.is_some())
        && let Some((name, value)) = worker_answer::replayed_field(worker)
    {
        head.insert_header(name, value)?;
    }
    add_common_fields(&mut head, &request.headers, ctx)?;
    Ok(head)
}

/// Whether the answer goes on in chunks, for its worker does not say how long it is. A client of HTTP/1.0 does not know them
/// (RFC 9112, 6.1).
fn goes_in_chunks(worker: &ResponseHeader, request: &RequestHeader) -> bool {
    let has_length = worker.headers.contains_key(header::CONTENT_LENGTH);
    request.version == Version::HTTP_11 && !has_length && may_have_body(worker, request)
}

/// Whether nothing but the end of the connection is that of the answer's body (RFC 9112, 6.3).
pub fn ends_with_connection(answer: &ResponseHeader, request: &RequestHeader) -> bool {
    let is_framed = |name| answer.headers.contains_key(name);
    !is_framed(header::CONTENT_LENGTH)
        && !is_framed(header::TRANSFER_ENCODING)
        && may_have_body(answer, request)
}

fn may_have_body(answer: &ResponseHeader, request: &RequestHeader) -> bool {
    let status_has_none = answer.status.is_informational() || worker_answer::has_no_body(answer.status);
    request.method != Method::HEAD && !status_has_none
}

/// What every answer carries, ours and a worker's.
///
/// # Errors
/// A field cannot be set; the fields are ours.
pub fn add_common_fields(
    head: &mut ResponseHeader,
    request: &HeaderMap,
    ctx: &Context,
) -> pingora::Result<()> {
    head.insert_header(X_REQUEST_ID, &ctx.request_id)?;
    head.insert_header(header::CACHE_CONTROL, NO_STORE)?;
    head.insert_header("X-Content-Type-Options", NOSNIFF)?;
    let standings =
        [("ip", ctx.ip_standing), ("tenant", ctx.tenant_standing), ("failed-keys", ctx.failed_keys_standing)];
    if let Some((policy, state)) = rate_limit_fields(&standings) {
        head.insert_header("RateLimit-Policy", policy)?;
        head.insert_header("RateLimit", state)?;
    }
    for (name, value) in ctx.directory.cors.answer_fields(request) {
        head.insert_header(name, value)?;
    }
    Ok(())
}

/// Whether the client waits for a go-ahead before it sends its body (RFC 9110, 10.1.1).
pub fn expects_continue(request: &RequestHeader) -> bool {
    let expect = request.headers.get(header::EXPECT);
    request.version == Version::HTTP_11
        && expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
