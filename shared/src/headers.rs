//! Header fields that gateway and worker both set or read, spelled as they are sent. HTTP compares names without
//! regard to case, and so do the libraries' lookups.

/// The request's id: the client's own when it is a UUID, else a new UUIDv7.
pub const X_REQUEST_ID: &str = "X-Request-Id";

/// The code of a worker's error, for the gateway's access line. It never reaches a client.
pub const X_SQ_CODE: &str = "X-SQ-Code";

/// The number of bytes of a worker's write, for the gateway's audit line. It never reaches a client.
pub const X_SQ_BYTES: &str = "X-SQ-Bytes";

/// The trace of a request (W3C Trace Context, 3.2).
pub const TRACEPARENT: &str = "traceparent";

/// Data of tracing systems (W3C Trace Context, 3.3).
pub const TRACESTATE: &str = "tracestate";

/// The key, as the Phext Notepad editor sends it.
pub const X_SQ_API_KEY: &str = "X-SQ-API-Key";

/// The client's name for a write: a repeat with the same one is not applied again
/// (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Marks an answer that was given to an earlier request with the same [`IDEMPOTENCY_KEY`].
pub const IDEMPOTENCY_REPLAYED: &str = "Idempotency-Replayed";

/// The gateway's own name for a write, the same in each attempt. A client's field of this name is dropped.
pub const X_SQ_REPEAT_KEY: &str = "X-SQ-Repeat-Key";

/// The client's address, as the proxies in front report it.
pub const X_FORWARDED_FOR: &str = "X-Forwarded-For";

/// Names that are looked up in each request: parsed once, here.
#[expect(missing_docs, reason = "each is the name above that is spelled like it")]
pub mod lookup {
    use http::HeaderName;

    pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    pub const X_SQ_CODE: HeaderName = HeaderName::from_static("x-sq-code");
    pub const X_SQ_BYTES: HeaderName = HeaderName::from_static("x-sq-bytes");
    pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
    pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
    pub const X_SQ_REPEAT_KEY: HeaderName = HeaderName::from_static("x-sq-repeat-key");
    pub const X_SQ_API_KEY: HeaderName = HeaderName::from_static("x-sq-api-key");
    pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
    pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
}

/// The media type of an error (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The media type of SQ's answers.
pub const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn a_name_is_looked_up_as_it_is_spelled() {
        for (spelled, looked_up) in [
            (super::X_REQUEST_ID, lookup::X_REQUEST_ID),
            (super::X_SQ_CODE, lookup::X_SQ_CODE),
            (super::X_SQ_BYTES, lookup::X_SQ_BYTES),
            (super::TRACEPARENT, lookup::TRACEPARENT),
            (super::TRACESTATE, lookup::TRACESTATE),
            (super::IDEMPOTENCY_KEY, lookup::IDEMPOTENCY_KEY),
            (super::X_SQ_REPEAT_KEY, lookup::X_SQ_REPEAT_KEY),
            (super::X_SQ_API_KEY, lookup::X_SQ_API_KEY),
            (super::IDEMPOTENCY_REPLAYED, lookup::IDEMPOTENCY_REPLAYED),
            (super::X_FORWARDED_FOR, lookup::X_FORWARDED_FOR),
        ] {
            assert!(looked_up.as_str().eq_ignore_ascii_case(spelled), "{spelled}");
        }
    }
}
