//! How long a request has waited for its worker: from the last byte of it that went to the worker to the head of the
//! worker's answer. What the gateway does before and after, and what the client takes for its body, is not in it.

use std::time::{Duration, Instant};

/// The wait of one request. A request that is sent again waits on.
#[derive(Debug, Clone, Copy, Default)]
pub struct WorkerWait {
    since: Option<Instant>,
    until: Option<Instant>,
}

impl WorkerWait {
    /// The worker has the whole request; gives since when the first worker had it.
    pub fn begin(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now)
    }

    /// How much is left of the time for an answer, which counts from when the first worker had the whole request.
    pub fn left(self, answer_limit: Duration, now: Instant) -> Duration {
        let waited = self.since.map(|since| now.saturating_duration_since(since));
        answer_limit.saturating_sub(waited.unwrap_or_default())
    }

    /// The head of the worker's answer is here; it may come before the request's end.
    pub fn answered(&mut self) {
        self.until.get_or_insert_with(Instant::now);
    }

    /// No answer is waited for any more.
    pub fn given_up(&mut self) {
        if self.since.is_some() {
            self.answered();
        }
    }

    /// How long it was, or is until now; `None` when no worker had the whole request, nor answered part of it.
    pub fn duration(self, now: Instant) -> Option<Duration> {
        match (self.since, self.until) {
            (None, None) => None,
            (None, Some(_)) => Some(Duration::ZERO),
            (Some(since), until) => Some(until.unwrap_or(now).saturating_duration_since(since)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_from_the_first_whole_request_to_the_answer() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(WorkerWait::default().duration(now), None);
        let mut early = WorkerWait::default();
        early.answered();
        early.begin();
        assert_eq!(early.duration(now + second), Some(Duration::ZERO));
        let mut lost = WorkerWait::default();
        lost.given_up();
        assert_eq!(lost.duration(now), None, "the worker never had it");
        let mut repeated = WorkerWait::default();
        repeated.begin();
        assert!(repeated.duration(Instant::now() + second) >= Some(second), "it still waits");
        let first = repeated.since;
        assert_eq!(WorkerWait::default().left(second, now), second, "no worker had it");
        assert!(repeated.left(second, Instant::now() + second / 2) <= second / 2);
        assert_eq!(repeated.left(second, Instant::now() + 2 * second), Duration::ZERO);
        repeated.begin();
        assert_eq!(repeated.since, first);
        repeated.given_up();
        assert_eq!(repeated.duration(now + second), repeated.duration(now + 2 * second));
    }
}
