//! Finds the key in a request: `Authorization: Bearer <key>`, `Authorization: <key>`, or `X-SQ-API-Key: <key>`.
//! Gateway and worker use this same code, so the worker checks the key that the gateway checked.

use http::{HeaderMap, header};

use crate::headers::lookup::X_SQ_API_KEY;
use crate::problem::{Code, Problem};
use crate::token::BearerToken;

/// Why there is no key to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The request has none of the headers.
    #[error("no key")]
    Missing,
    /// Two keys that differ: which one is meant is unknown.
    #[error("two different keys")]
    TwoKeys,
    /// The text cannot be a key.
    #[error("not a key")]
    Malformed,
}

impl CredentialError {
    /// What the client is told.
    pub fn problem(self) -> Problem {
        match self {
            Self::Missing => Problem::new(
                Code::MissingKey,
                "Send your key as \"Authorization: Bearer <key>\" or as \"X-SQ-API-Key: <key>\".",
            ),
            Self::TwoKeys => Problem::new(Code::BadRequest, "The request has two different keys. Send one."),
            Self::Malformed => Problem::new(
                Code::InvalidKey,
                "This is not a key. Send \"Authorization: Bearer <key>\"; a key is 1 to 512 visible ASCII characters.",
            ),
        }
    }
}

/// Reads the key. The same key in two places is one key.
pub fn read(headers: &HeaderMap) -> Result<BearerToken, CredentialError> {
    let authorization =
        headers.get_all(header::AUTHORIZATION).iter().map(|value| without_scheme(value.as_bytes()));
    let api_key = headers.get_all(X_SQ_API_KEY).iter().map(|value| value.as_bytes().trim_ascii());
    let mut keys = authorization.chain(api_key);
    let first = keys.next().ok_or(CredentialError::Missing)?;
    if keys.any(|other| other != first) {
        return Err(CredentialError::TwoKeys);
    }
    if first.is_empty() {
        return Err(CredentialError::Missing);
    }
    BearerToken::parse(first).map_err(|_| CredentialError::Malformed)
}

/// The scheme's name is case-insensitive (RFC 9110, 11.1).
fn without_scheme(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    match value.split_at_checked(6) {
        Some((scheme, [])) if scheme.eq_ignore_ascii_case(b"bearer") => &[],
        Some((scheme, [b' ' | b'\t', key @ ..])) if scheme.eq_ignore_ascii_case(b"bearer") => {
            key.trim_ascii()
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fields: &[(&'static str, &str)]) -> Result<String, CredentialError> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        read(&headers).map(|token| token.expose().to_owned())
    }

    #[test]
    fn every_place_and_spelling() {
        for fields in [
            [("authorization", "Bearer k")],
            [("authorization", "bearer   k ")],
            [("authorization", "BEARER\tk")],
            [("authorization", "k")],
            [("x-sq-api-key", "k")],
        ] {
            assert_eq!(key(&fields).as_deref(), Ok("k"), "{fields:?}");
        }
        assert_eq!(key(&[("authorization", "bearerk")]).as_deref(), Ok("bearerk"));
    }

    #[test]
    fn none_two_and_what_is_no_key() {
        assert_eq!(key(&[]), Err(CredentialError::Missing));
        assert_eq!(key(&[("authorization", "Bearer")]), Err(CredentialError::Missing));
        assert_eq!(key(&[("authorization", "Bearer ")]), Err(CredentialError::Missing));
        assert_eq!(key(&[("authorization", "")]), Err(CredentialError::Missing));
        assert_eq!(
            key(&[("authorization", "Bearer a"), ("x-sq-api-key", "b")]),
            Err(CredentialError::TwoKeys)
        );
        assert_eq!(
            key(&[("authorization", "Bearer a"), ("authorization", "b")]),
            Err(CredentialError::TwoKeys)
        );
        assert_eq!(key(&[("authorization", "Bearer a"), ("x-sq-api-key", "a")]).as_deref(), Ok("a"));
        assert_eq!(key(&[("authorization", "Basic YTpi")]), Err(CredentialError::Malformed));
        let longest = "k".repeat(512);
        assert!(key(&[("authorization", &longest)]).is_ok());
        assert_eq!(key(&[("authorization", &format!("{longest}k"))]), Err(CredentialError::Malformed));
    }
}
