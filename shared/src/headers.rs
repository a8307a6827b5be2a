//! Names of header fields that gateway and worker both set or read, in the lower case that HTTP
//! libraries keep.

/// The request's id: the client's own when it is a UUID, else a new UUIDv7.
pub const X_REQUEST_ID: &str = "x-request-id";

/// Another place for the key, used by the Phext Notepad editor.
pub const X_SQ_API_KEY: &str = "x-sq-api-key";

/// Who the client is, as the proxies in front say.
pub const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The media type of an error (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The media type of an answer of SQ.
pub const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
