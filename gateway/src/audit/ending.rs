//! How a write ended, as its line says it, and the wait until the line is written.

use std::sync::Arc;
use std::time::Duration;

use pingora::http::ResponseHeader;
use sq_shared::headers::{IDEMPOTENCY_REPLAYED, X_SQ_BYTES};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::health::Health;

/// How long an answer waits for its line. A disk that takes longer hangs, and the answer is true without.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The answer's status.
    pub status: u16,
    /// How many bytes were written or removed, as the answer says it.
    pub bytes: Option<u64>,
    /// Nothing was written: the answer is that to an earlier request.
    pub is_replay: bool,
}

/// A line on its way to the kernel.
#[must_use = "with `require` an answer waits for its line"]
pub(super) struct Written(Option<Waiter>);

struct Waiter {
    line: oneshot::Receiver<()>,
    until: Instant,
    health: Arc<Health>,
}

impl Ending {
    /// The client has no answer. What it asked for may have been done.
    pub const UNANSWERED: Self = Self::refused(0);

    /// The gateway refuses.
    pub const fn refused(status: u16) -> Self {
        Self { status, bytes: None, is_replay: false }
    }

    /// The worker answers with this head.
    pub fn answered(worker: &ResponseHeader, has_idempotency_key: bool) -> Self {
        let bytes = worker.headers.get(X_SQ_BYTES).and_then(|value| value.to_str().ok()?.parse().ok());
        // Otherwise it was the gateway that sent the write twice, which is one write to everybody else.
        let is_replay = has_idempotency_key && worker.headers.contains_key(IDEMPOTENCY_REPLAYED);
        Self { status: worker.status.as_u16(), bytes, is_replay }
    }
}

impl Written {
    /// There is no line to wait for.
    pub(super) fn nothing() -> Self {
        Self(None)
    }

    pub(super) fn new(waiter: Option<oneshot::Receiver<()>>, health: Arc<Health>) -> Self {
        Self(waiter.map(|line| Waiter { line, until: Instant::now() + WRITE_PATIENCE, health }))
    }

    /// Waits until the kernel has the line, where the config wants that. A line that cannot be written is not
    /// waited for: it stays in memory, and no other write is let in meanwhile. Whoever is stopped while it waits, or
    /// comes second, waits for the same line.
    pub(super) async fn wait(&mut self) {
        let Some(Waiter { line, until, health }) = &mut self.0 else { return };
        if tokio::time::timeout_at(*until, line).await.is_err() {
            health.hang();
        }
        self.0 = None;
    }
}
