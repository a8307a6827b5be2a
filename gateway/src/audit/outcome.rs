//! The outcome of a write, as its line states it, and the wait until the line is written.

use std::sync::Arc;
use std::time::Duration;

use pingora::http::ResponseHeader;
use sq_shared::headers::{IDEMPOTENCY_REPLAYED, X_SQ_BYTES};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::health::Health;

/// How long an answer waits for its line. A disk that takes longer is hung, and the answer goes out without the line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteOutcome {
    pub status: u16,
    /// The number of bytes written or removed, as the answer states it.
    pub bytes: Option<u64>,
    /// Nothing was written: this is the answer to an earlier request.
    pub is_replay: bool,
}

/// A line that the kernel does not have yet.
#[must_use = "with `require` an answer waits for its line"]
#[derive(Default)]
pub(super) struct PendingLine(Option<Waiter>);

struct Waiter {
    line: oneshot::Receiver<()>,
    until: Instant,
    health: Arc<Health>,
}

impl WriteOutcome {
    /// The gateway refused the write; 0 if the client got no answer, and the write may have been applied.
    pub(crate) const fn refused(status: u16) -> Self {
        Self { status, bytes: None, is_replay: false }
    }

    pub(crate) fn answered(worker: &ResponseHeader, has_idempotency_key: bool) -> Self {
        let bytes = worker.headers.get(X_SQ_BYTES).and_then(|value| value.to_str().ok()?.parse().ok());
        // Without the client's key it was the gateway that sent the write twice, which counts as one write.
        let is_replay = has_idempotency_key && worker.headers.contains_key(IDEMPOTENCY_REPLAYED);
        Self { status: worker.status.as_u16(), bytes, is_replay }
    }
}

impl PendingLine {
    pub(super) fn new(waiter: Option<oneshot::Receiver<()>>, health: Arc<Health>) -> Self {
        Self(waiter.map(|line| Waiter { line, until: Instant::now() + WRITE_TIMEOUT, health }))
    }

    /// Waits until the kernel has the line, if the config requires that. It does not wait longer for a line that cannot be
    /// written: the line stays in memory, and no other write is admitted meanwhile. A wait that was cancelled can be repeated.
    pub(super) async fn wait(&mut self) {
        let Some(Waiter { line, until, health }) = &mut self.0 else { return };
        if tokio::time::timeout_at(*until, line).await.is_err() {
            health.hang();
        }
        self.0 = None;
    }
}
