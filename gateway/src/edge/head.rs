//! The head of a request, read whole and checked before pingora sees it. pingora counts its time-outs from
//! read to read, so a byte every few seconds would live for ever; and it accepts a few heads that RFC 9112
//! calls malformed, on which two servers in a row might not agree. Here there is one deadline, and one
//! reading.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use memchr::memchr_iter;
use percent_encoding::percent_encode_byte;
use pingora::prelude::timeout;
use pingora::protocols::Stream;
use tokio::io::AsyncReadExt;

use super::byte_set::ByteSet;
use super::framing;
use crate::proxy::utf8::InvalidUtf8;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It breaks a rule of RFC 9112; the text says which.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// Its target has raw bytes that are not UTF-8.
    #[error(transparent)]
    InvalidUtf8(#[from] InvalidUtf8),
    /// The request line alone is over the limit.
    #[error("request line over {limit_bytes} bytes")]
    UriTooLong {
        /// The limit.
        limit_bytes: usize,
    },
    /// Request line and fields are over the limit.
    #[error("head over {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// More than [`HEADER_FIELDS`](sq_shared::limits::HEADER_FIELDS).
    #[error("too many header fields")]
    TooManyFields,
    /// It was not complete in time.
    #[error("head not complete after {limit:?}")]
    TooSlow {
        /// The limit.
        limit: Duration,
    },
    /// CONNECT asks for a tunnel.
    #[error("CONNECT")]
    Connect,
}

/// What the wait for a head ended with.
#[derive(Debug)]
pub enum Head {
    /// The bytes read: a whole, well-formed head, its target made a URI, and perhaps the beginning of the body.
    Complete(BytesMut),
    /// The client closed the connection.
    Closed,
}

/// How much of a head is taken, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// The size of request line and fields together; `None` leaves it to pingora's 1 MiB.
    pub bytes: Option<usize>,
    /// From its start to the head's last byte.
    pub time: Duration,
}

impl HeadLimits {
    fn limit_bytes(self) -> usize {
        self.bytes.unwrap_or(usize::MAX).min(PINGORA_HEAD_BYTES)
    }
}

/// pingora's own limit, which ours must not pass.
const PINGORA_HEAD_BYTES: usize = 1_048_575;

/// The longest target that the `http` crate holds, which pingora and hyper both use: its offsets are 16 bits.
const URI_BYTES: usize = 65_534;

/// Which bytes a URI may hold (RFC 3986, 2): the unreserved, the reserved but `#`, and `%`.
static URI_CHARACTERS: ByteSet = ByteSet::of_alphanumerics_and(b"-._~:/?[]@!$&'()*+,;=%");

/// A first read takes a usual head whole, and a short body with it.
const FIRST_READ_BYTES: usize = 2048;

/// Waits for the first bytes of a connection's next head, until `idle_end`. `None`: the client closed the
/// connection, or has let it lie idle for too long.
pub async fn first_bytes(stream: &mut Stream, idle_end: impl Future<Output = ()>) -> Option<BytesMut> {
    let mut buffer = BytesMut::with_capacity(FIRST_READ_BYTES);
    tokio::select! {
        biased;
        read = stream.read_buf(&mut buffer) => read.ok().filter(|bytes| *bytes > 0).map(|_| buffer),
        () = idle_end => None,
    }
}

/// Reads a head, of which `buffer` has the first bytes. Its time runs from `since`, or else from now.
///
/// # Errors
/// It is malformed, too large or too slow.
pub async fn read(
    stream: &mut Stream,
    buffer: BytesMut,
    limits: HeadLimits,
    since: Option<Instant>,
) -> Result<Head, HeadError> {
    let mut begun = PartialHead { buffer, searched: 0, limit_bytes: limits.limit_bytes() };
    // Usually the head is all there, and needs no clock.
    if let Some(head) = begun.take_whole()? {
        return Ok(head);
    }
    let left = limits.time.saturating_sub(since.map_or(Duration::ZERO, |since| since.elapsed()));
    let in_time = timeout(left, begun.read_on(stream)).await;
    in_time.unwrap_or(Err(HeadError::TooSlow { limit: limits.time }))
}

/// What has come of a head.
struct PartialHead {
    buffer: BytesMut,
    searched: usize,
    limit_bytes: usize,
}

impl PartialHead {
    async fn read_on(mut self, stream: &mut Stream) -> Result<Head, HeadError> {
        loop {
            if !matches!(stream.read_buf(&mut self.buffer).await, Ok(bytes) if bytes > 0) {
                return Ok(Head::Closed);
            }
            if let Some(head) = self.take_whole()? {
                return Ok(head);
            }
        }
    }

    /// The head, checked, once its last byte has come. What has come may be a mistake before that.
    fn take_whole(&mut self) -> Result<Option<Head>, HeadError> {
        skip_empty_lines(&mut self.buffer, self.searched);
        check_first_byte(&self.buffer)?;
        let Some(end) = find_end(&self.buffer, &mut self.searched) else {
            return check_size(&self.buffer, self.limit_bytes).map(|()| None);
        };
        let head = self.buffer.get(..end).unwrap_or_default();
        check_size(head, self.limit_bytes)?;
        framing::check(head)?;
        with_encoded_target(std::mem::take(&mut self.buffer)).map(|head| Some(Head::Complete(head)))
    }
}

/// An empty line before a request line is skipped: old clients send one after a body (RFC 9112, 2.2).
fn skip_empty_lines(buffer: &mut BytesMut, searched: usize) {
    while searched == 0 && buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
    }
}

/// What cannot be the start of a method is refused at once: usually it is a TLS handshake, whose client would
/// otherwise wait for the deadline.
fn check_first_byte(buffer: &[u8]) -> Result<(), HeadError> {
    let may_start = |byte: &u8| framing::is_token_byte(byte) || matches!(byte, b'\r' | b'\n');
    if buffer.first().is_none_or(may_start) {
        return Ok(());
    }
    Err(HeadError::Malformed(
        "This is not HTTP; for TLS, come through the proxy in front (http://, not https://, here).",
    ))
}

/// Where the first empty line ends, however its lines end. `searched` remembers the start of the line that
/// was not complete, so that no line is looked at twice.
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

/// Percent-encodes the bytes of the target that a URI may not hold (RFC 3986, 2): curl sends what it is
/// given, and the parsers behind are strict. Nearly every target needs nothing.
fn with_encoded_target(head: BytesMut) -> Result<BytesMut, HeadError> {
    let plain = |byte: &u8| URI_CHARACTERS.has(*byte);
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
    fn a_target_is_made_a_uri() {
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
    fn too_long_a_line_is_not_too_large_a_head() {
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
