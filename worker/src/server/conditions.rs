//! The conditions of a write, from its header fields: what the scroll must be now, and the key under which
//! the request may come again.

use hyper::header::{self, HeaderMap};
use sq_shared::headers::X_SQ_REPEAT_KEY;
use sq_shared::idempotency::{self, IdempotencyKey, InvalidIdempotencyKey};
use sq_shared::problem::{Code, Problem};

use crate::api::checksum::parse_checksum;
use crate::store::{Expected, KeyOrigin, RepeatKey};

/// Most checksums in one request; each takes 35 bytes of its head.
const CHECKSUMS: usize = 100;

/// What `If-Match` says (RFC 9110, 13.1.1); `None` without it. Weak tags match nothing, and neither does what
/// is no checksum of ours.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<Expected>, Problem> {
    let mut checksums = None;
    for value in headers.get_all(header::IF_MATCH) {
        let list = value.to_str().map_err(|_| malformed())?.trim();
        if list == "*" {
            return Ok(Some(Expected::Something));
        }
        let checksums: &mut Vec<u128> = checksums.get_or_insert_default();
        for tag in list.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            let opaque =
                opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(malformed)?;
            if checksums.len() == CHECKSUMS {
                return Err(malformed());
            }
            checksums.extend(parse_checksum(opaque).filter(|_| !tag.starts_with("W/")));
        }
    }
    Ok(checksums.map(Expected::OneOf))
}

/// The key of the request: the client's, or else the gateway's for its own retries.
pub(super) fn repeat_key(headers: &HeaderMap) -> Result<Option<RepeatKey>, Problem> {
    let clients = idempotency::read(headers).map_err(InvalidIdempotencyKey::problem)?;
    if let Some(key) = clients {
        return Ok(Some(RepeatKey::new(KeyOrigin::Client, key.as_str())));
    }
    let Some(value) = headers.get(X_SQ_REPEAT_KEY) else { return Ok(None) };
    let key = IdempotencyKey::parse(value.as_bytes()).map_err(InvalidIdempotencyKey::problem)?;
    Ok(Some(RepeatKey::new(KeyOrigin::Gateway, key.as_str())))
}

fn malformed() -> Problem {
    let detail = format!(
        "If-Match is * or up to {CHECKSUMS} entity tags as select answers them, as in If-Match: \"0123...\""
    );
    Problem::new(Code::InvalidParameter, detail)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn expected_of(values: &[&str]) -> Result<Option<Expected>, Code> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_str(value).unwrap());
        }
        expected(&headers).map_err(|problem| problem.code)
    }

    #[test]
    fn tags_are_read_strictly_and_compared_strongly() {
        let tag = format!("\"{:032x}\"", 0xabc);
        let one = Ok(Some(Expected::OneOf(vec![0xabc])));
        assert_eq!(expected_of(&[]), Ok(None));
        assert_eq!(expected_of(&["*"]), Ok(Some(Expected::Something)));
        assert_eq!(expected_of(&[&tag]), one);
        assert_eq!(expected_of(&[&format!("\"other\", {tag}")]), one);
        assert_eq!(expected_of(&["\"other\"", &tag]), one);
        for nothing in [&format!("W/{tag}"), "\"\"", "\"other\"", ""] {
            assert_eq!(expected_of(&[nothing]), Ok(Some(Expected::OneOf(Vec::new()))), "{nothing:?}");
        }
        for wrong in ["abc", "\"abc", "\"a\" \"b\"x", "**"] {
            assert_eq!(expected_of(&[wrong]), Err(Code::InvalidParameter), "{wrong:?}");
        }
        assert!(expected_of(&[&vec![tag.as_str(); CHECKSUMS].join(",")]).is_ok());
        assert!(expected_of(&[&vec![tag.as_str(); CHECKSUMS + 1].join(",")]).is_err());
    }
}
