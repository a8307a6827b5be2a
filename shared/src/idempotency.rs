//! The keys by which a repeated write is recognised: the client's `Idempotency-Key`, which gateway and worker read
//! alike, and the key that the gateway makes for requests that it may send again.

use std::fmt;

use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::headers::IDEMPOTENCY_KEY;
use crate::limits::IDEMPOTENCY_KEY_BYTES;
use crate::problem::{Code, Problem};

/// A client's key for a write: 1 to 128 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(Box<str>);

/// Why a request's key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdempotencyKey {
    /// Empty, too long, or not visible ASCII.
    #[error("an Idempotency-Key is 1 to 128 visible ASCII characters (0x21 to 0x7e)")]
    Malformed,
    /// Two keys that differ: which one is meant is unknown.
    #[error("the request has two different Idempotency-Keys: send one")]
    TwoKeys,
}

impl IdempotencyKey {
    /// Checks the bytes of a header field.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidIdempotencyKey> {
        let fits = (1..=IDEMPOTENCY_KEY_BYTES).contains(&bytes.len());
        let text = str::from_utf8(bytes).ok().filter(|_| fits && bytes.iter().all(u8::is_ascii_graphic));
        text.map(|text| Self(text.into())).ok_or(InvalidIdempotencyKey::Malformed)
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A client's key may contain anything, which does not belong in a log.
impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(..)")
    }
}

impl InvalidIdempotencyKey {
    /// What the client is told.
    pub fn problem(self) -> Problem {
        Problem::new(Code::InvalidParameter, self.to_string())
    }
}

/// Reads the client's key, if there is one. The same key in two fields is one key.
pub fn read(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, InvalidIdempotencyKey> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter().map(|value| value.as_bytes().trim_ascii());
    let Some(first) = keys.next() else { return Ok(None) };
    if keys.any(|other| other != first) {
        return Err(InvalidIdempotencyKey::TwoKeys);
    }
    IdempotencyKey::parse(first).map(Some)
}

/// A key for a write that the gateway may send more than once. Its 122 random bits cannot be guessed or taken by
/// accident.
pub fn new_repeat_key() -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let text = Uuid::new_v4().simple().encode_lower(&mut buffer);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(values: &[&[u8]]) -> Result<Option<String>, InvalidIdempotencyKey> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
        }
        read(&headers).map(|key| key.map(|key| key.as_str().to_owned()))
    }

    #[test]
    fn one_to_128_visible_characters_are_a_key() {
        assert_eq!(read_all(&[]), Ok(None));
        let visible: Vec<u8> = (0x21..=0x7e).collect();
        let longest = [b'k'; 128];
        for key in [&b"k"[..], b"\"a;b,c\"", &visible, &longest] {
            assert_eq!(read_all(&[key]), Ok(Some(String::from_utf8(key.to_vec()).unwrap())));
            assert_eq!(read_all(&[key, key]).unwrap(), read_all(&[key]).unwrap(), "the same twice is one");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_rule() {
        for other in [&b""[..], b" ", b"a b", b"a\tb", &[b'k'; 129], b"\xc3\xa4", b"\xff"] {
            assert_eq!(read_all(&[other]), Err(InvalidIdempotencyKey::Malformed), "{other:?}");
        }
        assert_eq!(read_all(&[b"a", b"b"]), Err(InvalidIdempotencyKey::TwoKeys));
        assert_eq!(read_all(&[b"a", b""]), Err(InvalidIdempotencyKey::TwoKeys));
        let problem = InvalidIdempotencyKey::Malformed.problem();
        assert_eq!((problem.code, problem.detail.contains("1 to 128")), (Code::InvalidParameter, true));
    }

    #[test]
    fn a_repeat_key_is_new_each_time_and_reads_as_a_key() {
        let (one, other) = (new_repeat_key(), new_repeat_key());
        assert!(one != other && IdempotencyKey::parse(one.as_bytes()).is_ok(), "{one:?} {other:?}");
    }
}
