//! Why a request head is refused, and what its client is told.

use std::time::Duration;

use sq_shared::limits::HEADER_FIELDS;
use sq_shared::problem::{Code, Problem};

use crate::proxy::utf8::InvalidUtf8;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// It breaks a rule of RFC 9112, which the text names.
    Malformed(&'static str),
    /// Its target contains raw bytes that are not UTF-8.
    InvalidUtf8(InvalidUtf8),
    /// The request line alone exceeds the limit.
    UriTooLong {
        /// The limit.
        limit_bytes: usize,
    },
    /// The request line and the fields together exceed the limit.
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// More than [`HEADER_FIELDS`].
    TooManyFields,
    /// It was not complete before the deadline.
    TooSlow {
        /// The limit.
        limit: Duration,
    },
    /// A request for a tunnel.
    Connect,
}

impl HeadError {
    /// What the client is told.
    pub fn problem(self) -> Problem {
        match self {
            Self::Malformed(what) => Problem::new(Code::BadRequest, what),
            Self::InvalidUtf8(error) => error.problem(),
            Self::UriTooLong { limit_bytes } => Problem::new(
                Code::UriTooLong,
                format!("The request line is longer than {limit_bytes} bytes."),
            ),
            Self::TooLarge { limit_bytes } => {
                let detail =
                    format!("Request line and headers together are longer than {limit_bytes} bytes.");
                Problem::new(Code::HeadersTooLarge, detail)
            }
            Self::TooManyFields => {
                let detail = format!("The request has more than {HEADER_FIELDS} header fields.");
                Problem::new(Code::HeadersTooLarge, detail)
            }
            Self::TooSlow { limit } => {
                let detail = format!("The request's head was not complete after {} s.", limit.as_secs_f32());
                Problem::new(Code::RequestTimeout, detail)
            }
            Self::Connect => Problem::new(Code::MethodNotAllowed, "CONNECT is not served here.")
                .allow("GET, HEAD, POST, OPTIONS"),
        }
    }
}
