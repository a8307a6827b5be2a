//! The statuses and fields of a worker's answer that may reach a client, each in its own form; `docs/api.md` lists them (What a
//! worker may answer). A compromised worker cannot send anything else.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;
use sq_shared::headers::{IDEMPOTENCY_REPLAYED, PLAIN_TEXT, PROBLEM_JSON, lookup};
use sq_shared::problem::Code;

/// The media types of answers. HTML is not one of them.
const MEDIA_TYPES: [&str; 3] = [PLAIN_TEXT, "application/json", PROBLEM_JSON];

/// The digits of the largest length and the longest wait that pass: more than any text, and 31 years.
const LENGTH_DIGITS: usize = 18;
const RETRY_AFTER_DIGITS: usize = 9;

/// The longest entity tag that passes. A worker's has 34 bytes.
const ENTITY_TAG_BYTES: usize = 66;

const INVALID_LENGTH: &str = "Content-Length is repeated or not a number";
const INVALID_CODING: &str = "Transfer-Encoding is repeated or other than chunked";

/// A field that may pass: its name, its spelling (pingora knows the capital letters of a few names only), and the check of its
/// value.
type Field = (HeaderName, &'static str, fn(&[u8]) -> bool);

const FIELDS: [Field; 5] = [
    (header::CONTENT_TYPE, "Content-Type", is_media_type),
    (header::CONTENT_LENGTH, "Content-Length", is_length),
    (header::ETAG, "ETag", is_entity_tag),
    (header::ALLOW, "Allow", is_method_list),
    (header::RETRY_AFTER, "Retry-After", is_wait),
];

/// Checks the status and the framing, before anything of the answer is used. The error says what is invalid.
pub(super) fn check(worker: &ResponseHeader) -> Result<(), Cow<'static, str>> {
    let status = worker.status;
    if !is_of_api(status) {
        return Err(format!("status {} is not one of the API's", status.as_u16()).into());
    }
    let has_length = has_only(worker, &header::CONTENT_LENGTH, is_length).ok_or(INVALID_LENGTH)?;
    let is_chunked = has_only(worker, &header::TRANSFER_ENCODING, is_chunked).ok_or(INVALID_CODING)?;
    // RFC 9110, 15.3.5 and 15.4.5.
    if has_no_body(status) && (has_length || is_chunked) {
        return Err(format!("status {} has no body, but one is announced", status.as_u16()).into());
    }
    Ok(())
}

/// The fields that pass, with the spelling of their names. A field whose value has another form is left out.
pub(super) fn fields(worker: &ResponseHeader) -> impl Iterator<Item = (&'static str, &HeaderValue)> {
    FIELDS.into_iter().filter_map(|(name, spelled, has_form)| {
        let value = worker.headers.get(name)?;
        has_form(value.as_bytes()).then_some((spelled, value))
    })
}

/// `Idempotency-Replayed`, which only a client that sent an `Idempotency-Key` gets.
pub(super) fn replayed_field(worker: &ResponseHeader) -> Option<(&'static str, &HeaderValue)> {
    let value = worker.headers.get(lookup::IDEMPOTENCY_REPLAYED)?;
    (value.as_bytes() == b"true").then_some((IDEMPOTENCY_REPLAYED, value))
}

/// Whether an answer of this status ends with its head (RFC 9112, 6.3).
pub(super) fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// 200, the statuses without a body, and those of the error table.
fn is_of_api(status: StatusCode) -> bool {
    status == StatusCode::OK
        || has_no_body(status)
        || Code::OF_CLIENT_API.into_iter().any(|code| code.status() == status.as_u16())
}

/// Whether there is such a field; `None` if it is repeated or its value has another form.
fn has_only(worker: &ResponseHeader, name: &HeaderName, has_form: fn(&[u8]) -> bool) -> Option<bool> {
    let mut values = worker.headers.get_all(name).iter();
    let Some(value) = values.next() else { return Some(false) };
    (values.next().is_none() && has_form(value.as_bytes())).then_some(true)
}

fn is_media_type(value: &[u8]) -> bool {
    MEDIA_TYPES.into_iter().any(|listed| listed.as_bytes() == value)
}

fn is_length(value: &[u8]) -> bool {
    is_number(value, LENGTH_DIGITS)
}

fn is_wait(value: &[u8]) -> bool {
    is_number(value, RETRY_AFTER_DIGITS)
}

fn is_number(value: &[u8], most_digits: usize) -> bool {
    (1..=most_digits).contains(&value.len()) && value.iter().all(u8::is_ascii_digit)
}

fn is_chunked(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"chunked")
}

/// A strong tag (RFC 9110, 8.8.3) of visible ASCII.
fn is_entity_tag(value: &[u8]) -> bool {
    let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    value.len() <= ENTITY_TAG_BYTES
        && quoted.is_some_and(|tag| tag.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"'))
}

/// A list of methods that routes take.
fn is_method_list(value: &[u8]) -> bool {
    let is_method = |word: &[u8]| matches!(word.trim_ascii(), b"GET" | b"HEAD" | b"POST" | b"OPTIONS");
    value.split(|byte| *byte == b',').all(is_method)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn statuses_are_those_of_the_api() {
        let passes = |status: u16| check(&answer(status, &[])).is_ok();
        let listed: Vec<u16> = (100..1000).filter(|status| passes(*status)).collect();
        let mut expected: Vec<u16> = Code::OF_CLIENT_API.iter().map(|code| code.status()).collect();
        expected.extend([200, 204, 304]);
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_length_is_digits_once() {
        let checked = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|value| ("Content-Length", *value)).collect();
            check(&answer(200, &fields))
        };
        assert_eq!(checked(&["0"]), Ok(()));
        assert_eq!(checked(&[&"9".repeat(LENGTH_DIGITS)]), Ok(()));
        for wrong in ["", "+2", "-2", "2, 2", "0x2", "2 2", "2.0", &"9".repeat(LENGTH_DIGITS + 1)] {
            assert_eq!(checked(&[wrong]), Err(INVALID_LENGTH.into()), "{wrong:?}");
        }
        assert_eq!(checked(&["2", "2"]), Err(INVALID_LENGTH.into()));
    }

    #[test]
    fn a_coding_is_chunked_once() {
        assert_eq!(check(&answer(200, &[("Transfer-Encoding", "Chunked")])), Ok(()));
        for wrong in ["gzip", "chunked, chunked", "gzip, chunked", "identity", "chunked;a=b", ""] {
            let checked = check(&answer(200, &[("Transfer-Encoding", wrong)]));
            assert_eq!(checked, Err(INVALID_CODING.into()), "{wrong:?}");
        }
    }

    #[test]
    fn a_status_without_a_body_announces_none() {
        for status in [204, 304] {
            assert_eq!(check(&answer(status, &[("ETag", "\"a\"")])), Ok(()));
            for field in [("Content-Length", "0"), ("Content-Length", "5"), ("Transfer-Encoding", "chunked")]
            {
                let error = check(&answer(status, &[field])).unwrap_err();
                assert_eq!(error, format!("status {status} has no body, but one is announced"), "{field:?}");
            }
        }
    }

    #[test]
    fn fields_pass_in_their_own_form_alone() {
        let passes = |name: &'static str, value: &str| fields(&answer(200, &[(name, value)])).count() == 1;
        for (name, right, wrong) in [
            ("Content-Type", "text/plain; charset=utf-8", "text/html"),
            ("Content-Type", "application/json", "application/json; a=b"),
            ("ETag", "\"0f\"", "0f"),
            ("ETag", "\"\"", "\""),
            ("ETag", "\"a\"", "W/\"a\""),
            ("ETag", "\"b\"", "\"a\", \"b\""),
            ("Allow", "GET, POST", "GET, TRACE"),
            ("Allow", "GET", ""),
            ("Retry-After", "5", "Fri, 31 Dec 1999 23:59:59 GMT"),
            ("Retry-After", "999999999", "1000000000"),
        ] {
            assert!(passes(name, right) && !passes(name, wrong), "{name}: {right}, {wrong}");
        }
        let longest = "x".repeat(ENTITY_TAG_BYTES - 2);
        assert!(passes("ETag", &format!("\"{longest}\"")) && !passes("ETag", &format!("\"{longest}x\"")));
        for name in ["Set-Cookie", "Location", "Server", "X-Request-Id", "Access-Control-Allow-Origin"] {
            assert!(!passes(name, "1"), "{name}");
        }
    }
}
