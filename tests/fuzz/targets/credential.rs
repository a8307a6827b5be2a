//! The key of a request, given as header lines: one that all places agree on, in the form of a key, or none at all;
//! and it is never shown.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sq_shared::credential::{self, CredentialError};

pub(crate) fn check(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let named = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let values: Vec<&[u8]> = named("authorization").chain(named("x-sq-api-key")).collect();
    match credential::read(&headers) {
        Ok(token) => {
            let key = token.expose();
            assert!((1..=512).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
            assert_eq!(format!("{token:?}"), "BearerToken(redacted)");
            named("authorization").for_each(|value| assert!(is_only(key, value, true), "{value:?}"));
            named("x-sq-api-key").for_each(|value| assert!(is_only(key, value, false), "{value:?}"));
            assert_adding_keys(&headers, key);
        }
        Err(CredentialError::Missing) => assert!(values.iter().all(|value| is_without_a_key(value))),
        Err(CredentialError::TwoKeys) => assert!(values.len() > 1),
        Err(CredentialError::Malformed) => assert!(!values.is_empty()),
    }
    let _ = headers.remove(header::AUTHORIZATION);
    let _ = headers.remove("x-sq-api-key");
    assert_eq!(credential::read(&headers).err(), Some(CredentialError::Missing));
}

/// Whether a value has this key, and beside it nothing but white space and perhaps the scheme.
fn is_only(key: &str, value: &[u8], may_have_scheme: bool) -> bool {
    let front = value.trim_ascii().strip_suffix(key.as_bytes());
    let Some(front) = front else { return false };
    let is_scheme = front.trim_ascii_end().eq_ignore_ascii_case(b"bearer") && front.ends_with(b" ")
        || front.trim_ascii_end().eq_ignore_ascii_case(b"bearer") && front.ends_with(b"\t");
    front.is_empty() || (may_have_scheme && is_scheme)
}

fn is_without_a_key(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    value.is_empty() || value.eq_ignore_ascii_case(b"bearer")
}

/// The same key once more changes nothing; another one beside it is an error, whichever place it stands in.
fn assert_adding_keys(headers: &HeaderMap, key: &str) {
    for name in ["authorization", "x-sq-api-key"] {
        let with = |value: String| {
            let mut headers = headers.clone();
            headers.append(name, value.parse().unwrap());
            credential::read(&headers).map(|token| token.expose().to_owned())
        };
        // "bearer" as a key is a key in one field, and the scheme without a key in the other.
        if !key.eq_ignore_ascii_case("bearer") {
            assert_eq!(with(key.to_owned()).as_deref(), Ok(key));
        }
        assert_eq!(with(format!("{key}x")), Err(CredentialError::TwoKeys));
    }
}
