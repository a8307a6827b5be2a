//! The conditions of a request, from its header fields: what the scroll must be before a write, the idempotency key of a
//! write, and what the client of a read has cached.

use hyper::header::{self, HeaderMap};
use sq_shared::headers::X_SQ_REPEAT_KEY;
use sq_shared::idempotency::{self, IdempotencyKey, InvalidIdempotencyKey};
use sq_shared::problem::{Code, Problem};
use xxhash_rust::xxh3::xxh3_128;

use crate::api::checksum::parse_checksum;
use crate::store::{Expected, KeyOrigin, WriteKey};

/// The most entity tags in one request; each takes 35 bytes of its head.
const MAX_TAGS: usize = 100;

/// What the scroll must be before a write, from `If-Match` and `If-None-Match`; `None` without them.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<Expected>, Problem> {
    let expected = if_match(headers)?;
    if !requires_no_text(headers)? {
        return Ok(expected);
    }
    // Only an empty scroll has this checksum.
    let empty = xxh3_128(b"");
    let checksums = match expected {
        None => vec![empty],
        Some(Expected::Something) => Vec::new(),
        Some(Expected::OneOf(checksums)) => {
            checksums.into_iter().filter(|checksum| *checksum == empty).collect()
        }
    };
    Ok(Some(Expected::OneOf(checksums)))
}

/// Whether a write requires that there is no text yet: `If-None-Match: *` (RFC 9110, 13.1.2), alone in its only field. Any
/// other value is refused: if it were ignored, the write would be applied without its condition.
fn requires_no_text(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut values = headers.get_all(header::IF_NONE_MATCH).iter();
    let Some(value) = values.next() else { return Ok(false) };
    if value.as_bytes().trim_ascii() == b"*" && values.next().is_none() {
        return Ok(true);
    }
    Err(Problem::new(
        Code::InvalidParameter,
        "on a write If-None-Match is * alone, for a scroll that has no text yet: to write only what you have read, send \
         its tag in If-Match",
    ))
}

/// What the client of a read has cached, from `If-None-Match`. Tags are compared weakly; one that is not ours matches
/// nothing.
pub(super) fn if_none_match(headers: &HeaderMap) -> Option<Expected> {
    let mut checksums = None;
    for value in headers.get_all(header::IF_NONE_MATCH) {
        let list = value.to_str().unwrap_or_default();
        if list.split(',').any(|tag| tag.trim() == "*") {
            return Some(Expected::Something);
        }
        let checksums: &mut Vec<u128> = checksums.get_or_insert_default();
        checksums.extend(list.split(',').filter_map(|tag| {
            let tag = tag.trim();
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            parse_checksum(opaque.strip_prefix('"')?.strip_suffix('"')?)
        }));
    }
    checksums.map(Expected::OneOf)
}

/// The condition of `If-Match` (RFC 9110, 13.1.1); `None` without it. A weak tag, or one that is not ours, matches nothing.
fn if_match(headers: &HeaderMap) -> Result<Option<Expected>, Problem> {
    let mut checksums = None;
    let values = headers.get_all(header::IF_MATCH);
    // The gateway joins several fields into one list, and `*` is not valid in a list.
    let is_alone = values.iter().nth(1).is_none();
    for value in values {
        let list = value.to_str().map_err(|_| malformed())?.trim();
        if list == "*" && is_alone {
            return Ok(Some(Expected::Something));
        }
        let checksums: &mut Vec<u128> = checksums.get_or_insert_default();
        for tag in list.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            let opaque =
                opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(malformed)?;
            if checksums.len() == MAX_TAGS {
                return Err(malformed());
            }
            checksums.extend(parse_checksum(opaque).filter(|_| !tag.starts_with("W/")));
        }
    }
    Ok(checksums.map(Expected::OneOf))
}

/// The idempotency key of a write: the client's, or else the one that the gateway sets for its own retries.
pub(super) fn repeat_key(headers: &HeaderMap) -> Result<Option<WriteKey>, Problem> {
    if let Some(key) = idempotency::read(headers).map_err(InvalidIdempotencyKey::problem)? {
        return Ok(Some(WriteKey::new(KeyOrigin::Client, key.as_str())));
    }
    let Some(value) = headers.get(X_SQ_REPEAT_KEY) else { return Ok(None) };
    let key = IdempotencyKey::parse(value.as_bytes()).map_err(InvalidIdempotencyKey::problem)?;
    Ok(Some(WriteKey::new(KeyOrigin::Gateway, key.as_str())))
}

fn malformed() -> Problem {
    let detail = format!(
        "If-Match is * or up to {MAX_TAGS} entity tags as select answers them, as in If-Match: \"0123...\""
    );
    Problem::new(Code::InvalidParameter, detail)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers_of(fields: &[(header::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_write_only_if_there_is_no_text_has_one_spelling() {
        let nothing = xxh3_128(b"");
        let of = |fields: &[(header::HeaderName, &str)]| {
            expected(&headers_of(fields)).map_err(|problem| problem.code)
        };
        let (none_match, any_match) = (header::IF_NONE_MATCH, header::IF_MATCH);
        let just = |checksums: Vec<u128>| Ok(Some(Expected::OneOf(checksums)));
        for star in ["*", " *"] {
            assert_eq!(of(&[(none_match.clone(), star)]), just(vec![nothing]), "{star:?}");
        }
        let star = (none_match.clone(), "*");
        assert_eq!(of(&[star.clone(), star.clone()]), Err(Code::InvalidParameter));
        assert_eq!(of(&[star.clone(), (any_match.clone(), "*")]), just(Vec::new()));
        let tags = format!("\"{nothing:032x}\", \"{:032x}\"", 0xabc);
        assert_eq!(of(&[star.clone(), (any_match.clone(), &tags)]), just(vec![nothing]));
        for wrong in ["", "\"a\"", "*, \"a\"", "\"a\", *", "*, *", "*,*", "*,", ",*", "**", "W/\"a\"", "a"] {
            assert_eq!(of(&[(none_match.clone(), wrong)]), Err(Code::InvalidParameter), "{wrong:?}");
            assert_eq!(of(&[star.clone(), (none_match.clone(), wrong)]), Err(Code::InvalidParameter));
        }
    }

    #[test]
    fn if_none_match_is_compared_weakly_and_parsed_leniently() {
        let of = |value: &str| if_none_match(&headers_of(&[(header::IF_NONE_MATCH, value)]));
        let tag = format!("\"{:032x}\"", 0xabc);
        assert_eq!(if_none_match(&HeaderMap::new()), None);
        for star in ["*", " * ", "*, *", &format!("{tag}, *")] {
            assert_eq!(of(star), Some(Expected::Something), "{star:?}");
        }
        for one in [tag.clone(), format!("W/{tag}"), format!("\"a,b\",{tag}"), format!("junk, {tag} ,")] {
            assert_eq!(of(&one), Some(Expected::OneOf(vec![0xabc])), "{one:?}");
        }
        for nothing in ["", "junk", "\"", "\"a\"", "w/\"00000000000000000000000000000abc\"", "\u{e4}"] {
            assert_eq!(of(nothing), Some(Expected::OneOf(Vec::new())), "{nothing:?}");
        }
    }

    fn expected_of(values: &[&str]) -> Result<Option<Expected>, Code> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_str(value).unwrap());
        }
        expected(&headers).map_err(|problem| problem.code)
    }

    #[test]
    fn if_match_is_compared_strongly_and_parsed_strictly() {
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
        for wrong in ["abc", "\"abc", "\"a\" \"b\"x", "**", "*, *"] {
            assert_eq!(expected_of(&[wrong]), Err(Code::InvalidParameter), "{wrong:?}");
        }
        for wrong in [["*", "*"], ["*", &tag], [&tag, "*"]] {
            assert_eq!(expected_of(&wrong), Err(Code::InvalidParameter), "{wrong:?}");
        }
        assert!(expected_of(&[&vec![tag.as_str(); MAX_TAGS].join(",")]).is_ok());
        assert!(expected_of(&[&vec![tag.as_str(); MAX_TAGS + 1].join(",")]).is_err());
    }
}
