//! Reads and checks a whole request head before pingora parses it. pingora's timeouts are per read, so a client that sends a
//! byte every few seconds could hold a connection indefinitely; and pingora accepts some heads that RFC 9112 calls malformed,
//! which two servers in a row may read differently.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use memchr::memchr_iter;
use percent_encoding::percent_encode_byte;
use pingora::prelude::timeout;
use pingora::protocols::Stream;
use sq_shared::byte_set::ByteSet;
use tokio::io::AsyncReadExt;

use super::framing;
use super::head_error::HeadError;

/// The limits of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// The size of request line and fields together; `None` leaves pingora's limit of 1 MiB.
    pub bytes: Option<usize>,
    /// The time until its last byte.
    pub time: Duration,
}

impl HeadLimits {
    fn limit_bytes(self) -> usize {
        self.bytes.unwrap_or(usize::MAX).min(PINGORA_HEAD_BYTES)
    }
}

/// pingora's own limit, which ours must not exceed.
const PINGORA_HEAD_BYTES: usize = 1_048_575;

/// The longest target of the `http` crate, which pingora and hyper both use: its offsets have 16 bits.
const URI_BYTES: usize = 65_534;

/// The bytes that a URI may contain (RFC 3986, 2): unreserved ones, reserved ones except `#`, and `%`.
static URI_CHARACTERS: ByteSet = ByteSet::alphanumerics_and(b"-._~:/?[]@!$&'()*+,;=%");

/// The buffer of the first read holds a usual head and a short body.
const FIRST_READ_BYTES: usize = 2048;

/// Waits for the first bytes of the next head, until `idle_end` completes. `None`: the client closed the connection, or it
/// was idle for too long.
pub async fn first_bytes(stream: &mut Stream, idle_end: impl Future<Output = ()>) -> Option<BytesMut> {
    let mut buffer = BytesMut::with_capacity(FIRST_READ_BYTES);
    tokio::select! {
        biased;
        read = stream.read_buf(&mut buffer) => read.ok().filter(|bytes| *bytes > 0).map(|_| buffer),
        () = idle_end => None,
    }
}

/// Reads a head whose first bytes are in `buffer`. Its time counts from `since`, or else from now. Returns the bytes read: a
/// well-formed head with a percent-encoded target, and possibly the start of the body. `None`: the client closed the connection.
///
/// # Errors
/// It is malformed, too large or too slow.
pub async fn read(
    stream: &mut Stream,
    buffer: BytesMut,
    limits: HeadLimits,
    since: Option<Instant>,
) -> Result<Option<BytesMut>, HeadError> {
    let mut partial = PartialHead { buffer, searched: 0, limit_bytes: limits.limit_bytes() };
    // Usually the head is complete already, and the clock need not be read.
    if let Some(head) = partial.take_complete()? {
        return Ok(Some(head));
    }
    let left = limits.time.saturating_sub(since.map_or(Duration::ZERO, |since| since.elapsed()));
    let in_time = timeout(left, partial.read_more(stream)).await;
    in_time.unwrap_or(Err(HeadError::TooSlow { limit: limits.time }))
}

/// The part of a head that has been read.
struct PartialHead {
    buffer: BytesMut,
    searched: usize,
    limit_bytes: usize,
}

impl PartialHead {
    async fn read_more(mut self, stream: &mut Stream) -> Result<Option<BytesMut>, HeadError> {
        while matches!(stream.read_buf(&mut self.buffer).await, Ok(bytes) if bytes > 0) {
            if let Some(head) = self.take_complete()? {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// The checked head, once it is complete. An incomplete head may already be wrong.
    fn take_complete(&mut self) -> Result<Option<BytesMut>, HeadError> {
        skip_empty_lines(&mut self.buffer, self.searched);
        check_first_byte(&self.buffer)?;
        let Some(end) = find_end(&self.buffer, &mut self.searched) else {
            return check_size(&self.buffer, self.limit_bytes).map(|()| None);
        };
        let head = self.buffer.get(..end).unwrap_or_default();
        check_size(head, self.limit_bytes)?;
        framing::check(head)?;
        with_encoded_target(std::mem::take(&mut self.buffer)).map(Some)
    }
}

/// Skips empty lines before the request line, which old clients send after a body (RFC 9112, 2.2).
fn skip_empty_lines(buffer: &mut BytesMut, searched: usize) {
    while searched == 0 && buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
    }
}

/// Refuses at once what cannot start a method: usually a TLS handshake, whose client would otherwise wait until the
/// deadline.
fn check_first_byte(buffer: &[u8]) -> Result<(), HeadError> {
    let may_start = |byte: &u8| framing::is_token_byte(byte) || matches!(byte, b'\r' | b'\n');
    if buffer.first().is_none_or(may_start) {
        return Ok(());
    }
    Err(HeadError::Malformed(
        "This is not HTTP; for TLS, come through the proxy in front (http://, not https://, here).",
    ))
}

/// Finds the end of the first empty line, with either line ending. `searched` is the start of the incomplete line, so that no
/// line is searched twice.
fn find_end(buffer: &[u8], searched: &mut usize) -> Option<usize> {
    let mut line_start = *searched;
    for offset in memchr_iter(b'\n', buffer.get(line_start..)?) {
        let newline = *searched + offset;
        let line = buffer.get(line_start..newline)?;
        if matches!(line, b"" | b"\r") {
            return Some(newline + 1);
        }
        line_start = newline + 1;
    }
    *searched = line_start;
    None
}

fn check_size(head: &[u8], limit_bytes: usize) -> Result<(), HeadError> {
    if head.len() <= limit_bytes {
        return Ok(());
    }
    let line_is_longer = !head.get(..limit_bytes).unwrap_or(head).contains(&b'\n');
    Err(if line_is_longer {
        HeadError::UriTooLong { limit_bytes }
    } else {
        HeadError::TooLarge { limit_bytes }
    })
}

/// Percent-encodes the bytes of the target that a URI may not contain (RFC 3986, 2): curl sends what it is given, and the
/// parsers after this one are strict. Nearly every target is unchanged.
fn with_encoded_target(head: BytesMut) -> Result<BytesMut, HeadError> {
    let plain = |byte: &u8| URI_CHARACTERS.contains(*byte);
    let mut parts = head.splitn(3, |byte| *byte == b' ');
    let (Some(method), Some(target), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(head);
    };
    let encoded_bytes: usize = target.iter().map(|byte| if plain(byte) { 1 } else { 3 }).sum();
    if encoded_bytes > URI_BYTES {
        return Err(HeadError::UriTooLong { limit_bytes: URI_BYTES });
    }
    if encoded_bytes == target.len() {
        return Ok(head);
    }
    let mut encoded = BytesMut::with_capacity(head.len() + 2 * target.len());
    encoded.extend_from_slice(method);
    encoded.extend_from_slice(b" ");
    for byte in target {
        if plain(byte) {
            encoded.extend_from_slice(&[*byte]);
        } else {
            encoded.extend_from_slice(percent_encode_byte(*byte).as_bytes());
        }
    }
    encoded.extend_from_slice(b" ");
    encoded.extend_from_slice(rest);
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_target_becomes_a_uri() {
        let encoded = |head: &str| with_encoded_target(BytesMut::from(head)).unwrap().to_vec();
        let plain = "GET /a?s=%41+b HTTP/1.1\r\nX: <ä>\r\n\r\n";
        assert_eq!(encoded(plain), plain.as_bytes());
        assert_eq!(
            encoded("GET /ä?s=<#> HTTP/1.1\r\nX: ä b\r\n\r\n"),
            "GET /%C3%A4?s=%3C%23%3E HTTP/1.1\r\nX: ä b\r\n\r\n".as_bytes()
        );
    }

    #[test]
    fn a_uri_at_the_limit_and_one_past() {
        let head =
            |target: String| with_encoded_target(BytesMut::from(&*format!("GET {target} HTTP/1.1\r\n\r\n")));
        assert!(head("/".repeat(URI_BYTES)).is_ok());
        assert!(head("/".repeat(URI_BYTES + 1)).is_err());
        assert!(head(format!("/{}", "<".repeat(URI_BYTES / 3))).is_ok());
        assert!(head(format!("/{}", "<".repeat(URI_BYTES / 3 + 1))).is_err());
    }

    #[test]
    fn the_end_is_found_across_reads() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        let mut searched = 0;
        let found: Vec<_> = (1..=head.len()).map(|length| find_end(&head[..length], &mut searched)).collect();
        let first = found.iter().position(Option::is_some).unwrap();
        assert_eq!((first + 1, found[first]), (head.len() - 4, Some(head.len() - 4)));
    }

    #[test]
    fn a_long_line_and_a_large_head_are_told_apart() {
        assert_eq!(check_size(&[b'a'; 10], 10), Ok(()));
        assert_eq!(check_size(&[b'a'; 11], 10), Err(HeadError::UriTooLong { limit_bytes: 10 }));
        assert_eq!(check_size(b"GET /\r\nX: y\r\n", 10), Err(HeadError::TooLarge { limit_bytes: 10 }));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = find_end(&bytes, &mut 0);
        }
    }
}
