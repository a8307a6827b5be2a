//! Builds the head for the worker and the head for the client. Both get a few known fields, set one by one: nothing of the
//! client's head, or of the worker's, passes through unread.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use sq_shared::headers::lookup;
use sq_shared::trace_context::TraceState;

use super::admit::Admitted;
use super::answer::add_common_fields;
use super::authenticate::AuthenticatedTenant;
use super::connection::may_have_body;
use super::context::Context;
use super::repeat::WriteKeys;
use super::target::origin_form;
use super::worker_answer;
use crate::traces::Trace;

/// The fields that are copied from the client's request.
const REQUEST_FIELDS: [HeaderName; 3] =
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// The usual number of fields for a worker.
const REQUEST_FIELD_COUNT: usize = 8;

/// The usual number of fields of an answer, including pingora's two.
const ANSWER_FIELD_COUNT: usize = 12;

/// Builds the head for the worker. It has the client's method and target, which are checked already.
pub(super) fn request_head(
    client: &RequestHeader,
    admitted: &Admitted,
    request_id: &HeaderValue,
    trace: Trace,
) -> pingora::Result<RequestHeader> {
    let tenant = &admitted.tenant;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = client.method.clone();
    parts.uri = client.uri.clone();
    // The client's fields pass only through the lines below.
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
    // The names' case is not kept, which halves the work: our worker and SQ's ignore it.
    let mut head = RequestHeader::from(parts);
    let (target, origin_form) = (client.raw_path(), origin_form(client.raw_path()));
    if origin_form.len() < target.len() {
        head.set_raw_path(origin_form)?;
    }
    Ok(head)
}

/// Adds the request's trace. The trace state of other systems belongs to the client's trace only.
fn add_trace(fields: &mut HeaderMap, client: &RequestHeader, trace: Trace) {
    if let Some(parent) = trace.passed_on() {
        fields.insert(lookup::TRACEPARENT, parent.header_value());
    }
    if trace.of_client.is_some()
        && let Some(state) = TraceState::from_headers(&client.headers)
    {
        fields.insert(lookup::TRACESTATE, state.header_value().clone());
    }
}

fn add_write_fields(fields: &mut HeaderMap, client: &RequestHeader, keys: &WriteKeys) {
    add_condition(fields, client, header::IF_MATCH);
    add_condition(fields, client, header::IF_NONE_MATCH);
    if let Some(key) = &keys.of_client {
        fields.insert(lookup::IDEMPOTENCY_KEY, key.clone());
    }
    fields.insert(lookup::X_SQ_REPEAT_KEY, keys.own.clone());
}

/// Adds one of the client's conditions, if the request has it. A list of tags in many fields means the same in one field (RFC 9110,
/// 5.3), which counts once against the worker's limit of fields.
fn add_condition(fields: &mut HeaderMap, client: &RequestHeader, name: HeaderName) {
    let mut values = client.headers.get_all(&name).iter();
    let Some(first) = values.next() else { return };
    let mut list = first.as_bytes().to_vec();
    for value in values {
        list.extend_from_slice(b", ");
        list.extend_from_slice(value.as_bytes());
    }
    fields.insert(name, HeaderValue::from_bytes(&list).unwrap_or_else(|_| first.clone()));
}

fn bearer(tenant: &AuthenticatedTenant) -> HeaderValue {
    let text = ["Bearer ", tenant.token().expose()].concat();
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Builds the client's head from the worker's, which was checked. `has_key` is whether the client sent an `Idempotency-Key`.
pub(super) fn answer_head(
    worker: &ResponseHeader,
    request: &RequestHeader,
    ctx: &Context<'_>,
    has_key: bool,
) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(worker.status, Some(ANSWER_FIELD_COUNT))?;
    for (name, value) in worker_answer::fields(worker) {
        head.insert_header(name, value)?;
    }
    if is_chunked(worker, request) {
        head.insert_header("Transfer-Encoding", "chunked")?;
    }
    // To its client, a write that only the gateway repeated is an ordinary one.
    if has_key && let Some((name, value)) = worker_answer::replayed_field(worker) {
        head.insert_header(name, value)?;
    }
    add_common_fields(&mut head, &request.headers, ctx)?;
    Ok(head)
}

/// Whether the answer is chunked, because its length is not known. An HTTP/1.0 client does not know chunks (RFC 9112, 6.1).
fn is_chunked(worker: &ResponseHeader, request: &RequestHeader) -> bool {
    let has_length = worker.headers.contains_key(header::CONTENT_LENGTH);
    request.version == Version::HTTP_11 && !has_length && may_have_body(worker, request)
}
