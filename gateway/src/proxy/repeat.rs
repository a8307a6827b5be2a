//! Whether a request whose worker died is sent again, and the keys by which the worker knows a write that
//! is.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use pingora::{Error, ErrorSource, ErrorType};
use sq_shared::idempotency::{self, InvalidIdempotencyKey};

/// How often a request is sent at most: once, and again while its worker dies under it. With three, one in fifty
/// kills in quick succession still showed at one of eight writers; many more would let a request that is a
/// worker's death take its tenant's workers down again and again.
pub const MOST_ATTEMPTS: u32 = 5;

/// How long a request waits for somebody to listen on its slot, or for its worker to be told of its key: a pool is
/// restarted in a second or two, and reads the registry sooner. More is not asked of a client, who is told to come again.
pub const ABSENCE_TIME: Duration = Duration::from_secs(5);

/// The shortest and the longest pause before the next try in an absence.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// How long to wait before the next try, after so long an absence: a quarter of it. A short one is noticed at once, and
/// thousands who wait for a long one cost little.
pub fn pause_in_absence(elapsed: Duration) -> Duration {
    (elapsed / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// The pause before the third attempt; each further one is three times as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How long to wait before another attempt, when so many were made. A worker that died is there again at once; one that
/// dies again is given time, and so is a pool that closes the connections of a tenant which it has not read of yet: with
/// five attempts, 650 ms in all.
pub fn pause_after(attempts: u32) -> Duration {
    match attempts.checked_sub(2) {
        None => Duration::ZERO,
        Some(before) => FIRST_PAUSE.saturating_mul(3_u32.saturating_pow(before)),
    }
}

/// The names of a write, the same each time it is sent.
#[derive(Debug)]
pub struct WriteKeys {
    /// The gateway's own: never anything that a client sent, so that no client can have it taken for another.
    pub own: HeaderValue,
    /// The client's `Idempotency-Key`.
    pub of_client: Option<HeaderValue>,
}

impl WriteKeys {
    /// The keys of a request with these headers.
    ///
    /// # Errors
    /// Its `Idempotency-Key` is none, or it has two.
    pub fn new(headers: &HeaderMap) -> Result<Self, InvalidIdempotencyKey> {
        let of_client = idempotency::read(headers)?;
        // What was read as a key is always a header's value.
        let of_client = of_client.and_then(|key| HeaderValue::try_from(key.as_str()).ok());
        Ok(Self { own: idempotency::new_repeat_key(), of_client })
    }
}

/// Whether the error means that the worker is gone and the next one may be asked: it died, or ended just when
/// the request came. One that is only slow may still be at work on it; one that answers, even with an
/// error, has answered.
pub fn is_death(error: &Error) -> bool {
    use ErrorType::{ConnectionClosed, ReadError, WriteError};
    *error.esource() == ErrorSource::Upstream
        && matches!(error.etype(), ConnectionClosed | ReadError | WriteError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_to_the_worker_that_ended_is_its_death() {
        for etype in [ErrorType::ConnectionClosed, ErrorType::ReadError, ErrorType::WriteError] {
            assert!(is_death(&Error::new_up(etype.clone())));
            assert!(!is_death(&Error::new_down(etype)));
        }
        for etype in [ErrorType::ReadTimedout, ErrorType::WriteTimedout, ErrorType::HTTPStatus(503)] {
            assert!(!is_death(&Error::new_up(etype)));
        }
    }

    #[test]
    fn the_first_repeat_is_at_once_and_the_last_one_after_half_a_second() {
        let pauses_ms = (0..MOST_ATTEMPTS).map(|attempts| pause_after(attempts).as_millis());
        assert_eq!(pauses_ms.collect::<Vec<_>>(), [0, 0, 50, 150, 450]);
    }

    #[test]
    fn the_gateways_key_is_its_own() {
        let mut headers = HeaderMap::new();
        for name in ["x-sq-repeat-key", "x-request-id", "idempotency-key"] {
            headers.insert(name, HeaderValue::from_static("0192f0c123457abc8def0123456789ab"));
        }
        let keys = WriteKeys::new(&headers).unwrap();
        assert_eq!(keys.of_client.as_ref(), headers.get("idempotency-key"));
        assert!(Some(&keys.own) != headers.get("idempotency-key"));
        assert!(keys.own != WriteKeys::new(&headers).unwrap().own, "one per request");
    }
}
