//! Errors for clients: `application/problem+json` (RFC 9457), with one status per code. A detail says what to do, and
//! never contains a path, a token or a key.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::visible;

/// Declares the codes, each with its status, name and title.
macro_rules! codes {
    (
        client_api { $($client:ident: $client_row:expr;)* }
        others { $($other:ident: $other_row:expr;)* }
    ) => {
        /// Every code of the contract. It determines status, title and URN.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each variant is the code of its name; docs/api.md says when it is sent")]
        pub enum Code {
            $($client,)*
            $($other,)*
        }

        impl Code {
            /// Every code of the client API. `Internal` is not among them, because it is always a defect; the codes of
            /// the admin API alone follow it.
            pub const OF_CLIENT_API: [Self; 36] = [$(Self::$client,)*];

            /// Status, name and title.
            fn row(self) -> (u16, &'static str, &'static str) {
                match self {
                    $(Self::$client => $client_row,)*
                    $(Self::$other => $other_row,)*
                }
            }
        }
    };
}

codes! {
    client_api {
        InvalidUtf8: (400, "invalid_utf8", "Not UTF-8");
        InvalidCoordinate: (400, "invalid_coordinate", "Invalid coordinate");
        InvalidPhext: (400, "invalid_phext", "Invalid phext name");
        MissingParameter: (400, "missing_parameter", "Missing parameter");
        InvalidParameter: (400, "invalid_parameter", "Invalid parameter");
        BreakInScroll: (400, "break_in_scroll", "Break inside a scroll");
        BadRequest: (400, "bad_request", "Malformed request");
        MissingKey: (401, "missing_key", "Key required");
        InvalidKey: (401, "invalid_key", "Unknown key");
        ExpiredKey: (401, "expired_key", "Expired key");
        TenantSuspended: (403, "tenant_suspended", "Tenant suspended");
        TenantReserved: (403, "tenant_reserved", "Tenant not yet active");
        ReadOnlyKey: (403, "read_only_key", "Key is read-only");
        ForeignNamespace: (403, "foreign_namespace", "Another tenant's namespace");
        ForbiddenPhext: (403, "forbidden_phext", "Phext outside the tenant's directory");
        UnknownRoute: (404, "unknown_route", "No such route");
        MethodNotAllowed: (405, "method_not_allowed", "Method not allowed");
        RequestTimeout: (408, "request_timeout", "Request too slow");
        PreconditionFailed: (412, "precondition_failed", "The scroll has changed");
        BodyTooLarge: (413, "body_too_large", "Body too large");
        UnsupportedEncoding: (415, "unsupported_encoding", "Encoded body");
        UnsupportedMediaType: (415, "unsupported_media_type", "Body of a type that is not stored");
        UriTooLong: (414, "uri_too_long", "Request line too long");
        HeadersTooLarge: (431, "headers_too_large", "Headers too large");
        IdempotencyKeyReused: (422, "idempotency_key_reused", "Key of another request");
        RateLimitedIp: (429, "rate_limited_ip", "Too many requests from this address");
        RateLimitedTenant: (429, "rate_limited_tenant", "Too many requests of this tenant");
        TooManyFailedKeys: (429, "too_many_failed_keys", "Too many wrong keys from this address");
        TooManyInFlight: (429, "too_many_in_flight", "Too many requests at once");
        WorkerFailed: (502, "worker_failed", "Worker failed");
        WorkerUnavailable: (503, "worker_unavailable", "Worker unavailable");
        DataRootMissing: (503, "data_root_missing", "Data missing");
        ShuttingDown: (503, "shutting_down", "Shutting down");
        WorkerTimeout: (504, "worker_timeout", "Worker too slow");
        QuotaExceeded: (507, "quota_exceeded", "Quota exceeded");
        DiskFull: (507, "disk_full", "Disk full");
    }
    others {
        Internal: (500, "internal", "Internal error");
        UnknownTenant: (404, "unknown_tenant", "No such tenant");
        UnknownTenantKey: (404, "unknown_key", "The tenant has no such key");
        TenantExists: (409, "tenant_exists", "There is such a tenant already");
        NoFreeSlot: (409, "no_free_slot", "Every slot has a tenant");
        TooManyKeys: (409, "too_many_keys", "The tenant can have no more keys");
        DirectoryInUse: (409, "directory_in_use", "The tenant's directory is in use");
        Misdirected: (421, "misdirected", "Asked by another name");
        InvalidFiles: (422, "invalid_files", "Mistakes in config or registry");
        FilesUnavailable: (503, "files_unavailable", "A file cannot be read or written");
        AdminKeyNotSet: (503, "admin_key_not_set", "There is no admin key");
    }
}

impl Code {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.row().0
    }

    /// The code as text, also a label in metrics.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Reads a code that a worker sends to the gateway.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::OF_CLIENT_API.into_iter().find(|code| code.as_str() == text)
    }

    /// A few words for people.
    pub fn title(self) -> &'static str {
        self.row().2
    }

    /// The challenge of a 401 (RFC 6750, section 3): without an error when no key was sent.
    pub fn www_authenticate(self) -> Option<&'static str> {
        match self {
            Self::MissingKey => Some(r#"Bearer realm="sq""#),
            Self::InvalidKey => {
                Some(r#"Bearer realm="sq", error="invalid_token", error_description="The key is not known""#)
            }
            Self::ExpiredKey => {
                Some(r#"Bearer realm="sq", error="invalid_token", error_description="The key has expired""#)
            }
            _ => None,
        }
    }
}

/// An error on its way to a client.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What went wrong.
    pub code: Code,
    /// What to do, in a sentence.
    pub detail: Cow<'static, str>,
    /// Whole seconds after which the same request is expected to pass.
    pub retry_after_s: Option<u64>,
    /// The methods that the route does take, for 405.
    pub allow: Option<&'static str>,
    /// The current tag of the resource, for 412.
    pub entity_tag: Option<String>,
    members: Vec<(&'static str, Value)>,
}

impl Problem {
    /// An error with its detail.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after_s: None,
            allow: None,
            entity_tag: None,
            members: Vec::new(),
        }
    }

    /// Adds a member, such as `offset` or `quota`.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// Adds the number of seconds after which to try again.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Adds the methods that the route takes.
    #[must_use]
    pub fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// The header fields of the error: name and value.
    pub fn header_fields(&self) -> impl Iterator<Item = (&'static str, Cow<'static, str>)> {
        let challenge = self.code.www_authenticate().map(|value| ("WWW-Authenticate", value.into()));
        let allow = self.allow.map(|value| ("Allow", value.into()));
        let tag = self.entity_tag.as_deref().map(|tag| ("ETag", tag.to_owned().into()));
        // RFC 9110, 15.5.16: the codings that would have been accepted.
        let is_encoded = self.code == Code::UnsupportedEncoding;
        let codings = is_encoded.then_some(("Accept-Encoding", Cow::Borrowed("identity")));
        let retry = self.retry_after_s.map(|seconds| ("Retry-After", seconds.to_string().into()));
        challenge.into_iter().chain(allow).chain(tag).chain(codings).chain(retry)
    }

    /// The body.
    pub fn to_json(&self, request_id: &str) -> Vec<u8> {
        let body = Body {
            r#type: format_args!("urn:sq:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status(),
            detail: &sentence(&self.detail),
            code: self.code.as_str(),
            request_id,
            members: self.members.iter().cloned().collect(),
        };
        // Strings and numbers always become JSON.
        let json = serde_json::to_string(&body).unwrap_or_default();
        visible::json(&json).into_owned().into_bytes()
    }
}

/// A detail is often an error's text, which begins in lower case and has no full stop. It is for people, and may
/// contain a name that a client chose.
fn sentence(text: &str) -> String {
    let text = visible::text(text);
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    let mut sentence: String = first.into_iter().chain(characters).collect();
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

/// The members in the order of RFC 9457, then ours.
#[derive(Serialize)]
struct Body<'p> {
    r#type: std::fmt::Arguments<'p>,
    title: &'static str,
    status: u16,
    detail: &'p str,
    code: &'static str,
    request_id: &'p str,
    #[serde(flatten)]
    members: BTreeMap<&'static str, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_every_member_of_the_contract() {
        let problem = Problem::new(Code::InvalidUtf8, "send UTF-8").with("offset", 7).with("part", "body");
        let body: Value = serde_json::from_slice(&problem.to_json("id-1")).unwrap();
        assert_eq!(body["type"], "urn:sq:problem:invalid_utf8");
        assert_eq!(body["status"], 400);
        assert_eq!(body["code"], "invalid_utf8");
        assert_eq!(body["detail"], "Send UTF-8.");
        assert_eq!(body["request_id"], "id-1");
        assert_eq!((&body["offset"], &body["part"]), (&Value::from(7), &Value::from("body")));
    }

    #[test]
    fn a_name_in_a_problem_hides_nothing() {
        let name = "a\u{202e}txt";
        let text =
            Problem::new(Code::InvalidPhext, format!("no phext {name}")).with("field", name).to_json("id-1");
        assert!(text.is_ascii());
        let body: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&body["detail"], &body["field"]), (&"No phext a\\u{202e}txt.".into(), &name.into()));
    }

    #[test]
    fn only_a_401_has_a_challenge() {
        for code in Code::OF_CLIENT_API {
            assert_eq!(code.www_authenticate().is_some(), code.status() == 401, "{code:?}");
        }
    }
}
