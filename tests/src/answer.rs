//! An HTTP response, parsed from its bytes, and checks for what every response and error of ours must contain.

use std::fmt;

use serde_json::Value;

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header fields as received.
    pub headers: Vec<(String, String)>,
    /// The body, without chunk framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first field with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    ///
    /// # Panics
    /// It is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("an answer of UTF-8")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// The body's text, if the status is 200.
    ///
    /// # Panics
    /// The status is another.
    pub fn ok(&self) -> &str {
        assert_eq!(self.status, 200, "{self}");
        self.text()
    }

    /// `Retry-After`, in seconds.
    ///
    /// # Panics
    /// It is missing or not a whole number of at least 1.
    pub fn retry_after_s(&self) -> u64 {
        let value = self.header("retry-after").and_then(|value| value.parse().ok());
        value.filter(|seconds| *seconds > 0).unwrap_or_else(|| panic!("no Retry-After: {self}"))
    }

    /// Checks that this is a worker's error with this status and code, and returns its body. Only the gateway adds
    /// the fields that every response carries.
    ///
    /// # Panics
    /// It is not.
    pub fn refused(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{code} was expected: {self}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self}");
        let body = self.json();
        assert_eq!(body.get("code"), Some(&Value::from(code)), "{self}");
        body
    }

    /// Checks that this is the error with this status and code, in the form of the contract, and returns its body.
    ///
    /// # Panics
    /// It is not.
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.refused(status, code);
        let text = |name: &str| {
            body.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no {name}: {self}"))
        };
        assert_eq!(text("type"), format!("urn:sq:problem:{code}"), "{self}");
        assert_eq!(body.get("status"), Some(&Value::from(status)), "{self}");
        assert!(!text("title").is_empty() && !text("detail").is_empty(), "{self}");
        assert_eq!(Some(text("request_id")), self.header("x-request-id"), "{self}");
        self.assert_common_headers();
        self.assert_headers_of(status, code);
        body
    }

    /// Checks the fields that every response carries.
    ///
    /// # Panics
    /// One is missing.
    pub fn assert_common_headers(&self) {
        assert!(self.header("x-request-id").is_some_and(is_uuid), "no X-Request-Id: {self}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self}");
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{self}");
    }

    /// Checks the fields that only some statuses have.
    fn assert_headers_of(&self, status: u16, code: &str) {
        let challenge = self.header("www-authenticate");
        assert_eq!(
            challenge.is_some_and(|value| value.starts_with("Bearer realm=\"sq\"")),
            status == 401,
            "{self}"
        );
        assert_eq!(self.header("allow").is_some(), status == 405, "{self}");
        // A client should not retry while the state lasts until the operator acts.
        if code == "data_root_missing" {
            assert_eq!(self.header("retry-after"), None, "{self}");
        } else if status == 429 || status == 503 {
            self.retry_after_s();
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        let shown: String = String::from_utf8_lossy(&self.body).chars().take(2000).collect();
        write!(f, "\n{shown}")
    }
}

/// A UUID, with or without hyphens (RFC 9562).
pub fn is_uuid(text: &str) -> bool {
    let digits: String = text.chars().filter(|letter| *letter != '-').collect();
    let is_hex = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hyphens: Vec<usize> = text.match_indices('-').map(|(index, _)| index).collect();
    is_hex && (hyphens.is_empty() || hyphens == [8, 13, 18, 23])
}
