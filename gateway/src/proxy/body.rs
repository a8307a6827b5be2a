//! Checks a body on its way to the worker: its size, its rate, and that it is UTF-8.

use std::time::Instant;

use bytes::Bytes;
use http::header;
use pingora::http::RequestHeader;
use sq_shared::limits::{BODY_WINDOW, BODY_WINDOW_BYTES};

use super::utf8::{BodyValidator, InvalidUtf8};

/// How much of a body is kept, to be sent again: the fixed size of pingora's buffer.
const KEPT_BYTES: u64 = 64 * 1024;

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error(transparent)]
    InvalidUtf8(#[from] InvalidUtf8),
    #[error("body over {limit_bytes} bytes")]
    TooLarge { limit_bytes: u64 },
    #[error("body under 1 KiB/s")]
    TooSlow,
    #[error("malformed framing")]
    Malformed,
}

/// Checks a body as it streams. It holds up to three bytes of it.
#[derive(Debug, Default)]
pub(super) struct BodyMeter {
    limit_bytes: Option<u64>,
    declared_bytes: Option<u64>,
    seen_bytes: u64,
    validator: BodyValidator,
    /// `None` until the first piece: most requests have no body, and the clock need not be read.
    window_start: Option<Instant>,
    window_bytes: u64,
}

impl BodyMeter {
    pub(super) fn new(request: &RequestHeader, limit_bytes: Option<u64>) -> Result<Self, BodyError> {
        let declared_bytes = declared_bytes(request);
        if let (Some(declared), Some(limit_bytes)) = (declared_bytes, limit_bytes)
            && declared > limit_bytes
        {
            return Err(BodyError::TooLarge { limit_bytes });
        }
        Ok(Self { limit_bytes, declared_bytes, ..Self::default() })
    }

    /// Starts over when the body is sent again.
    pub(super) fn restart(&mut self) {
        *self =
            Self { limit_bytes: self.limit_bytes, declared_bytes: self.declared_bytes, ..Self::default() };
    }

    /// Checks the next piece before it is sent to the worker.
    ///
    /// # Errors
    /// The body is refused. The worker sees it cut short, and does not act on it.
    pub(super) fn push(&mut self, piece: Option<&Bytes>, end: bool) -> Result<(), BodyError> {
        if let Some(piece) = piece {
            self.seen_bytes += piece.len() as u64;
            if let Some(limit_bytes) = self.limit_bytes.filter(|limit| self.seen_bytes > *limit) {
                return Err(BodyError::TooLarge { limit_bytes });
            }
            self.validator.push(piece)?;
            self.check_speed(piece.len() as u64)?;
        }
        // With a declared length the last piece is known before the end: it must not reach the worker if the text ends
        // inside a character.
        if end || self.is_whole() {
            self.validator.finish()?;
        }
        Ok(())
    }

    /// Whether a body of declared length is complete.
    pub(super) fn is_whole(&self) -> bool {
        self.declared_bytes == Some(self.seen_bytes)
    }

    fn check_speed(&mut self, bytes: u64) -> Result<(), BodyError> {
        self.window_bytes += bytes;
        let now = Instant::now();
        if now.duration_since(*self.window_start.get_or_insert(now)) < BODY_WINDOW {
            return Ok(());
        }
        if self.window_bytes < BODY_WINDOW_BYTES && self.declared_bytes != Some(self.seen_bytes) {
            return Err(BodyError::TooSlow);
        }
        self.window_start = Some(now);
        self.window_bytes = 0;
        Ok(())
    }
}

pub(super) fn declared_bytes(request: &RequestHeader) -> Option<u64> {
    request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(super) fn expects_body(request: &RequestHeader) -> bool {
    let length = request.headers.get(header::CONTENT_LENGTH);
    length.is_some_and(|value| value.as_bytes() != b"0")
        || request.headers.contains_key(header::TRANSFER_ENCODING)
}

/// Whether the body may be longer than what is kept of it, in which case it could not be sent again.
pub(super) fn may_be_long(request: &RequestHeader) -> bool {
    declared_bytes(request).is_none_or(|bytes| bytes > KEPT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_piece_is_checked_before_it_is_sent() {
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
