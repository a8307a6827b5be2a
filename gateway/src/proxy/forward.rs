//! What goes to the worker and what comes back. Both heads are built anew from a few known fields; no
//! byte of the client's head, and none of the worker's, passes through unread.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use pingora::http::{RequestHeader, ResponseHeader};
use sq_shared::headers::X_REQUEST_ID;
use sq_shared::limits::{BODY_WINDOW, BODY_WINDOW_BYTES};

use super::authenticate::AuthenticatedTenant;
use super::context::Context;
use super::limit::Standing;
use super::utf8::{BodyValidator, InvalidUtf8};

/// What a client's request keeps on its way in, beside the key and the id, which are set anew.
const REQUEST_FIELDS: [HeaderName; 3] =
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// What a worker's answer keeps on its way out.
const ANSWER_FIELDS: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::ETAG,
    header::ALLOW,
    header::RETRY_AFTER,
];

/// Builds the head that the worker gets.
///
/// # Errors
/// The head cannot be built; no request that passed the checks makes that happen.
pub fn request_head(
    client: &RequestHeader,
    tenant: &AuthenticatedTenant,
    request_id: &HeaderValue,
) -> pingora::Result<RequestHeader> {
    let target = origin_form(client.raw_path());
    let mut head = RequestHeader::build(client.method.clone(), target, Some(6))?;
    head.insert_header(header::HOST, tenant.tenant().upstream.to_string())?;
    head.insert_header(header::AUTHORIZATION, bearer(tenant))?;
    head.insert_header(X_REQUEST_ID, request_id)?;
    for name in REQUEST_FIELDS {
        if let Some(value) = client.headers.get(&name) {
            head.insert_header(name, value)?;
        }
    }
    Ok(head)
}

fn bearer(tenant: &AuthenticatedTenant) -> HeaderValue {
    let text = format!("Bearer {}", tenant.token().expose());
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Path and query of a target; an absolute form (`http://host/path`) loses its front.
pub fn origin_form(target: &[u8]) -> &[u8] {
    let authority = [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let (front, rest) = target.split_at_checked(scheme.len())?;
        front.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let Some(authority) = authority else { return target };
    match authority.iter().position(|byte| matches!(byte, b'/' | b'?')) {
        Some(end) => authority.get(end..).unwrap_or(b"/"),
        None => b"/",
    }
}

/// Path and query apart.
pub fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(mark) => (target.get(..mark).unwrap_or_default(), target.get(mark + 1..).unwrap_or_default()),
        None => (target, b""),
    }
}

/// Builds the head that the client gets from the worker's.
///
/// # Errors
/// A field cannot be set; the fields are ours.
pub fn answer_head(
    worker: &ResponseHeader,
    request: &RequestHeader,
    ctx: &Context,
) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(worker.status, Some(16))?;
    for name in ANSWER_FIELDS {
        if let Some(value) = worker.headers.get(&name) {
            head.insert_header(name, value)?;
        }
    }
    add_common_fields(&mut head, &request.headers, ctx)?;
    Ok(head)
}

/// What every answer carries, ours and a worker's.
///
/// # Errors
/// A field cannot be set; the fields are ours.
pub fn add_common_fields(
    head: &mut ResponseHeader,
    request: &http::HeaderMap,
    ctx: &Context,
) -> pingora::Result<()> {
    head.insert_header(X_REQUEST_ID, &ctx.request_id)?;
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    head.insert_header("X-Content-Type-Options", "nosniff")?;
    let standings = [("ip", ctx.ip_standing), ("tenant", ctx.tenant_standing)];
    if let Some((policy, state)) = rate_limit_fields(&standings) {
        head.insert_header("RateLimit-Policy", policy)?;
        head.insert_header("RateLimit", state)?;
    }
    for (name, value) in ctx.directory.cors.answer_fields(request) {
        head.insert_header(name, value)?;
    }
    Ok(())
}

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10): `q` requests in `w`
/// seconds; `r` remain, `t` seconds until the count is full again, or until one more passes.
pub fn rate_limit_fields(standings: &[(&str, Option<Standing>)]) -> Option<(String, String)> {
    let mut policy = String::new();
    let mut state = String::new();
    for (name, standing) in standings.iter().filter_map(|(name, standing)| Some((name, (*standing)?))) {
        let separator = if policy.is_empty() { "" } else { ", " };
        let (quota, window_s) = (standing.rate.count, standing.rate.period.as_secs());
        policy.push_str(&format!("{separator}\"{name}\";q={quota};w={window_s}"));
        state.push_str(&format!("{separator}\"{name}\";r={};t={}", standing.remaining, standing.reset_s));
    }
    (!policy.is_empty()).then_some((policy, state))
}

/// Why a body is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is not UTF-8.
    #[error(transparent)]
    InvalidUtf8(#[from] InvalidUtf8),
    /// It is longer than the limit.
    #[error("body over {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// It comes too slowly.
    #[error("body under 1 KiB/s")]
    TooSlow,
}

/// Watches a body go by: its size, its speed, and that it is UTF-8. Of the body itself it keeps no more
/// than three bytes.
#[derive(Debug)]
pub struct BodyMeter {
    limit_bytes: Option<u64>,
    declared_bytes: Option<u64>,
    seen_bytes: u64,
    validator: BodyValidator,
    window_start: Instant,
    window_bytes: u64,
}

impl BodyMeter {
    /// A meter for a request's body.
    ///
    /// # Errors
    /// Its `Content-Length` is over the limit.
    pub fn new(request: &RequestHeader, limit_bytes: Option<u64>) -> Result<Self, BodyError> {
        let declared = request.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let declared_bytes = declared.and_then(|text| text.parse().ok());
        if let (Some(declared), Some(limit_bytes)) = (declared_bytes, limit_bytes)
            && declared > limit_bytes
        {
            return Err(BodyError::TooLarge { limit_bytes });
        }
        Ok(Self {
            limit_bytes,
            declared_bytes,
            seen_bytes: 0,
            validator: BodyValidator::default(),
            window_start: Instant::now(),
            window_bytes: 0,
        })
    }

    /// Starts over: pingora sends the body's first bytes again when it repeats a request.
    pub fn restart(&mut self) {
        self.seen_bytes = 0;
        self.validator = BodyValidator::default();
        self.window_start = Instant::now();
        self.window_bytes = 0;
    }

    /// Whether a body is announced at all.
    pub fn expects_body(request: &RequestHeader) -> bool {
        let length = request.headers.get(header::CONTENT_LENGTH);
        length.is_some_and(|value| value.as_bytes() != b"0")
            || request.headers.contains_key(header::TRANSFER_ENCODING)
    }

    /// Takes the next piece, before it goes to the worker.
    ///
    /// # Errors
    /// The body is not to be taken; the worker sees it cut short, and does not act on it.
    pub fn push(&mut self, piece: Option<&Bytes>, end: bool) -> Result<(), BodyError> {
        if let Some(piece) = piece {
            self.seen_bytes += piece.len() as u64;
            if let Some(limit_bytes) = self.limit_bytes.filter(|limit| self.seen_bytes > *limit) {
                return Err(BodyError::TooLarge { limit_bytes });
            }
            self.validator.push(piece)?;
            self.check_speed(piece.len() as u64)?;
        }
        // With a declared length the last piece is known before the end is: it must not reach the worker
        // when the text breaks off inside a character.
        if end || self.declared_bytes == Some(self.seen_bytes) {
            self.validator.finish()?;
        }
        Ok(())
    }

    fn check_speed(&mut self, bytes: u64) -> Result<(), BodyError> {
        self.window_bytes += bytes;
        let elapsed: Duration = self.window_start.elapsed();
        if elapsed < BODY_WINDOW {
            return Ok(());
        }
        if self.window_bytes < BODY_WINDOW_BYTES && self.declared_bytes != Some(self.seen_bytes) {
            return Err(BodyError::TooSlow);
        }
        self.window_start = Instant::now();
        self.window_bytes = 0;
        Ok(())
    }
}

/// Whether the client waits for a go-ahead before it sends its body (RFC 9110, 10.1.1).
pub fn expects_continue(request: &RequestHeader) -> bool {
    let expect = request.headers.get(header::EXPECT);
    request.version == http::Version::HTTP_11
        && expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_lose_their_front() {
        assert_eq!(origin_form(b"/a?b"), b"/a?b");
        assert_eq!(origin_form(b"http://h/a?b"), b"/a?b");
        assert_eq!(origin_form(b"HTTP://h?b"), b"?b");
        assert_eq!(origin_form(b"http://h"), b"/");
        assert_eq!(split_target(b"/a?b?c"), (&b"/a"[..], &b"b?c"[..]));
    }

    #[test]
    fn the_last_piece_is_judged_before_it_is_sent() {
        let mut request = RequestHeader::build("POST", b"/", None).unwrap();
        request.insert_header(header::CONTENT_LENGTH, "4").unwrap();
        let mut meter = BodyMeter::new(&request, Some(4)).unwrap();
        assert_eq!(meter.push(Some(&Bytes::from_static(b"ab")), false), Ok(()));
        let error = meter.push(Some(&Bytes::from_static(b"c\xc3")), false);
        assert_eq!(error, Err(InvalidUtf8 { part: "body", offset: 3 }.into()));
        assert_eq!(BodyMeter::new(&request, Some(3)).unwrap_err(), BodyError::TooLarge { limit_bytes: 3 });
        let mut counted =
            BodyMeter::new(&RequestHeader::build("POST", b"/", None).unwrap(), Some(4)).unwrap();
        assert_eq!(counted.push(Some(&Bytes::from_static(b"abcd")), false), Ok(()));
        assert_eq!(
            counted.push(Some(&Bytes::from_static(b"e")), false),
            Err(BodyError::TooLarge { limit_bytes: 4 })
        );
    }
}
