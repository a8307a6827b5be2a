//! When and how often a request is sent again, and the keys by which the worker recognises a repeated write.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use sq_shared::idempotency::{self, InvalidIdempotencyKey};

/// The number of attempts while the worker dies under the request. With three, one in fifty kills in quick succession was still
/// visible to one of eight writers; with many more, a request that crashes its worker would crash it again and again.
pub(super) const MAX_ATTEMPTS: u32 = 5;

/// How long a request waits until something listens on its slot, or its worker learns of its key: a pool restarts within a
/// second or two, and reads the registry sooner. After that the client is told to try again.
pub(super) const ABSENCE_TIME: Duration = Duration::from_secs(5);

/// The shortest and the longest pause while the worker is absent.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_millis(400);

/// The pause before the third attempt; each further one is three times as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Why a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    WorkerDied,
    /// Nothing listens on the slot, so the request was not sent.
    WorkerAbsent,
    /// The worker has not learned of the key yet, so it did not serve the request.
    KeyNotPropagated,
}

#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// How many workers died under it.
    deaths: u32,
    /// When its worker was first found absent, or without its key.
    absent_since: Option<Instant>,
}

impl Attempts {
    /// Whether a worker got the request before and died.
    pub(super) fn is_repeat(&self) -> bool {
        self.deaths > 0
    }

    /// Whether another attempt may follow the death of the worker.
    pub(super) fn may_repeat(&self) -> bool {
        self.deaths + 1 < MAX_ATTEMPTS
    }

    /// Whether the request may wait longer for a worker that is absent or does not know its key. The time counts from the
    /// first call.
    pub(super) fn may_wait(&mut self) -> bool {
        self.absent_since.get_or_insert_with(Instant::now).elapsed() < ABSENCE_TIME
    }

    /// Waits before the next attempt. Only a death counts as an attempt: otherwise the request was not served.
    pub(super) async fn pause(&mut self, reason: Retry) {
        if reason == Retry::WorkerDied {
            self.deaths += 1;
        }
        let pause = match self.absent_since {
            Some(since) => pause_in_absence(since.elapsed()),
            None => pause_after(self.deaths),
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// The pause while the worker is absent: a quarter of the time so far. The end of a short absence is noticed at once, and
/// thousands of requests that wait for a long one cost little.
fn pause_in_absence(elapsed: Duration) -> Duration {
    (elapsed / 4).clamp(MIN_PAUSE, MAX_PAUSE)
}

/// The pause after this many attempts. A worker that died is replaced at once. One that dies again is given time, and so is a
/// pool that closes the connections of a tenant that it has not read of yet: 650 ms in all over five attempts.
fn pause_after(attempts: u32) -> Duration {
    match attempts.checked_sub(2) {
        None => Duration::ZERO,
        Some(before) => FIRST_PAUSE.saturating_mul(3_u32.saturating_pow(before)),
    }
}

/// The keys of a write, the same for each attempt.
#[derive(Debug)]
pub(super) struct WriteKeys {
    /// The gateway's own key, never a value that a client sent: no client can make its write look like another one.
    pub own: HeaderValue,
    pub of_client: Option<HeaderValue>,
}

impl WriteKeys {
    pub(super) fn new(headers: &HeaderMap) -> Result<Self, InvalidIdempotencyKey> {
        let of_client = idempotency::read(headers)?;
        // A valid key is always a valid header value.
        let of_client = of_client.and_then(|key| HeaderValue::try_from(key.as_str()).ok());
        Ok(Self { own: idempotency::new_repeat_key(), of_client })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repeat_is_at_once_and_the_last_one_after_half_a_second() {
        let pauses_ms = (0..MAX_ATTEMPTS).map(|attempts| pause_after(attempts).as_millis());
        assert_eq!(pauses_ms.collect::<Vec<_>>(), [0, 0, 50, 150, 450]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_sent_five_times_and_an_absence_is_no_attempt() {
        let mut attempts = Attempts::default();
        for _ in 1..MAX_ATTEMPTS {
            assert!(attempts.may_repeat());
            attempts.pause(Retry::WorkerDied).await;
        }
        assert!(!attempts.may_repeat() && attempts.is_repeat());
        let mut absent = Attempts::default();
        for reason in
            [Retry::WorkerAbsent, Retry::KeyNotPropagated].repeat(usize::try_from(MAX_ATTEMPTS).unwrap())
        {
            assert!(absent.may_wait());
            absent.pause(reason).await;
        }
        assert!(absent.may_repeat() && !absent.is_repeat());
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
