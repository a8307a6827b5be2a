//! Which web pages may call the API (CORS, Fetch standard). By default none: no CORS field is sent, and browsers withhold the
//! answer from the page.

use http::{HeaderMap, HeaderValue, header};
use sq_shared::config::Cors;

/// The fields that a page may send, beside those that browsers always allow.
const ALLOW_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, traceparent, tracestate, X-Request-Id, X-SQ-API-Key",
);
const ALLOW_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
/// The fields of the answer that a page may read.
const EXPOSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "ETag, Idempotency-Replayed, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id",
);
/// A day; browsers cap it at what they like (Chromium at two hours).
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("86400");

/// A field, with its spelling: pingora knows the capital letters of a few names only.
type Field = (&'static str, HeaderValue);

/// The allowed origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CorsPolicy {
    Off,
    Any,
    Listed(Vec<String>),
}

impl CorsPolicy {
    pub(crate) fn new(config: &Cors) -> Self {
        match config.allow_origins.as_slice() {
            [] => Self::Off,
            origins if origins.iter().any(|origin| origin == "*") => Self::Any,
            origins => Self::Listed(origins.to_vec()),
        }
    }

    /// The fields of an ordinary answer to a request with these headers.
    pub(crate) fn answer_fields(&self, request: &HeaderMap) -> Vec<Field> {
        let Some(allowed) = self.allowed(request) else { return self.vary() };
        let mut fields = self.vary();
        fields.push(("Access-Control-Allow-Origin", allowed));
        fields.push(("Access-Control-Expose-Headers", EXPOSE_HEADERS));
        fields
    }

    pub(crate) fn preflight_fields(&self, request: &HeaderMap) -> Vec<Field> {
        let Some(allowed) = self.allowed(request) else { return self.vary() };
        let mut fields = self.vary();
        fields.push(("Access-Control-Allow-Origin", allowed));
        fields.push(("Access-Control-Allow-Methods", ALLOW_METHODS));
        fields.push(("Access-Control-Allow-Headers", ALLOW_HEADERS));
        fields.push(("Access-Control-Max-Age", MAX_AGE_S));
        fields
    }

    fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        match self {
            Self::Off => None,
            // The answer does not depend on the origin and needs no Vary.
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Listed(origins) => {
                let origin = request.get(header::ORIGIN)?;
                origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
            }
        }
    }

    /// Tells caches that the answer depends on the origin.
    fn vary(&self) -> Vec<Field> {
        match self {
            Self::Listed(_) => vec![("Vary", HeaderValue::from_static("Origin"))],
            Self::Off | Self::Any => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(policy: &CorsPolicy, origin: &'static str) -> Option<HeaderValue> {
        policy.allowed(&HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static(origin))]))
    }

    #[test]
    fn origins_are_compared_byte_by_byte() {
        let listed = CorsPolicy::Listed(vec!["https://good.example".to_owned()]);
        assert_eq!(allowed(&listed, "https://good.example").unwrap(), "https://good.example");
        for other in [
            "http://good.example",
            "https://good.example:8443",
            "https://good.example/",
            "https://GOOD.example",
            "https://good.example.evil.example",
            "https://evil-good.example",
            "https://good.example https://evil.example",
            "null",
            "*",
            "",
        ] {
            assert_eq!(allowed(&listed, other), None, "{other}");
        }
        assert_eq!(listed.allowed(&HeaderMap::new()), None);
        assert_eq!(allowed(&CorsPolicy::Any, "null").unwrap(), "*");
        assert_eq!(CorsPolicy::Any.allowed(&HeaderMap::new()).unwrap(), "*");
        assert_eq!(allowed(&CorsPolicy::Off, "https://good.example"), None);
    }
}
