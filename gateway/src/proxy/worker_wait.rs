//! Measures how long a request waits for its worker: from the last byte sent to the worker to the head of its answer. The
//! gateway's own work and the client's time for its body are not included.

use std::time::{Duration, Instant};

/// The wait of one request, over all of its attempts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkerWait {
    since: Option<Instant>,
    until: Option<Instant>,
}

impl WorkerWait {
    /// Notes that a worker has the whole request. Returns when the first worker had it.
    pub(crate) fn begin(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now)
    }

    /// What is left of the time for an answer, which counts from when the first worker had the whole request.
    pub(crate) fn left(self, answer_limit: Duration, now: Instant) -> Duration {
        let waited = self.since.map(|since| now.saturating_duration_since(since));
        answer_limit.saturating_sub(waited.unwrap_or_default())
    }

    /// Notes the head of the worker's answer, which may come before the request's end.
    pub(crate) fn answered(&mut self) {
        self.until.get_or_insert_with(Instant::now);
    }

    /// Notes that the gateway does not wait any longer.
    pub(crate) fn give_up(&mut self) {
        if self.since.is_some() {
            self.answered();
        }
    }

    /// How long the wait was, or has been until now; `None` if no worker had the whole request or answered a part of it.
    pub(crate) fn duration(self, now: Instant) -> Option<Duration> {
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
    fn the_wait_lasts_from_the_first_whole_request_to_the_answer() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(WorkerWait::default().duration(now), None);
        let mut early = WorkerWait::default();
        early.answered();
        early.begin();
        assert_eq!(early.duration(now + second), Some(Duration::ZERO));
        let mut lost = WorkerWait::default();
        lost.give_up();
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
        repeated.give_up();
        assert_eq!(repeated.duration(now + second), repeated.duration(now + 2 * second));
    }
}
