//! Names of header fields that gateway and worker both set or read, spelled as they are sent. HTTP compares
//! them without regard to case, and so do the libraries' lookups by text.

/// The request's id: the client's own when it is a UUID, else a new UUIDv7.
pub const X_REQUEST_ID: &str = "X-Request-Id";

/// The code of a worker's error, for the gateway's access line; it goes no further.
pub const X_SQ_CODE: &str = "X-SQ-Code";

/// How many bytes a worker's write had, for the gateway's audit line; it goes no further.
pub const X_SQ_BYTES: &str = "X-SQ-Bytes";

/// To which trace a request belongs (W3C Trace Context, 3.2).
pub const TRACEPARENT: &str = "traceparent";

/// What tracing systems note beside (W3C Trace Context, 3.3).
pub const TRACESTATE: &str = "tracestate";

/// Another place for the key, used by the Phext Notepad editor.
pub const X_SQ_API_KEY: &str = "X-SQ-API-Key";

/// The client's name for a write: a repeat with the same one is not applied again
/// (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Says that an answer is the one to an earlier request with the same [`IDEMPOTENCY_KEY`].
pub const IDEMPOTENCY_REPLAYED: &str = "Idempotency-Replayed";

/// The gateway's own name for a write, the same each time it sends it; no client's passes.
pub const X_SQ_REPEAT_KEY: &str = "X-SQ-Repeat-Key";

/// Who the client is, as the proxies in front say.
pub const X_FORWARDED_FOR: &str = "X-Forwarded-For";

/// The media type of an error (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The media type of an answer of SQ.
pub const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
