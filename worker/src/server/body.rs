//! Reads a request's body, and requires it to be complete, small enough, fast enough and UTF-8.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap};
use sq_shared::limits::{BODY_WINDOW, BODY_WINDOW_BYTES};
use sq_shared::problem::{Code, Problem};
use tokio::time::{Instant, sleep_until, timeout};

use crate::server::memory_budget::{MemoryBudget, Reservation};

/// The memory of all bodies being read, in KiB: two of the largest.
const BUDGET_KIB: u32 = 128 * 1024;

/// A body of declared length reserves memory for all of it at once, so that several fast ones don't each stop half-way.
/// It keeps that reservation only while it sends [`FAST_BYTES`] in this time, because a client that declares a body and
/// sends nothing must not block others. If every other body that a tenant may have in flight by default does that, a body
/// still gets memory in less than the 10 s that it waits.
const FAST_WINDOW: Duration = Duration::from_millis(250);

/// 1 MiB/s.
const FAST_BYTES: u64 = 256 * 1024;

/// The rest of a refused body is read only up to this length.
const DISCARD_BYTES: u64 = 1024 * 1024;

/// How long to read the rest of a refused body.
const DISCARD_TIME: Duration = Duration::from_millis(250);

/// The budget of all bodies.
pub(super) fn budget() -> MemoryBudget {
    MemoryBudget::new(BUDGET_KIB, "other large bodies are being read: try again, or send smaller ones")
}

/// The complete body as text.
pub(super) async fn read(
    headers: &HeaderMap,
    incoming: &mut Incoming,
    limit: u64,
    budget: &MemoryBudget,
) -> Result<String, Problem> {
    // Most requests have no body: don't read the clock for them.
    if incoming.is_end_stream() {
        return Ok(String::new());
    }
    let declared = incoming.size_hint().exact();
    if declared.is_some_and(|bytes| bytes > limit) {
        return Err(too_large(limit));
    }
    // A body of unknown length reserves as it arrives, like a slow one.
    let mut reservation = budget.reserve(declared.unwrap_or(0)).await?;
    let bytes = collect(incoming, limit, budget, &mut reservation).await?;
    check_complete(headers, bytes.len())?;
    String::from_utf8(bytes).map_err(|error| {
        Problem::new(Code::InvalidUtf8, "the body is not UTF-8: SQ stores text only")
            .with("part", "body")
            .with("offset", error.utf8_error().valid_up_to())
    })
}

/// Reads the rest of a refused body if it is short. Closing a connection with unread bytes resets it, and the client
/// might never see the answer.
pub(super) async fn discard(headers: &HeaderMap, incoming: &mut Incoming) {
    let is_short = incoming.size_hint().upper().is_some_and(|bytes| bytes <= DISCARD_BYTES);
    // Reading would send a 100 (Continue) to a client that waits for one.
    if !is_short || headers.contains_key(header::EXPECT) {
        return;
    }
    let rest = async { while let Some(Ok(_)) = incoming.frame().await {} };
    let _ = timeout(DISCARD_TIME, rest).await;
}

async fn collect(
    incoming: &mut Incoming,
    limit: u64,
    budget: &MemoryBudget,
    reservation: &mut Reservation,
) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut window = Window::open(BODY_WINDOW, BODY_WINDOW_BYTES);
    let mut fast = Window::open(FAST_WINDOW, FAST_BYTES);
    loop {
        let total = bytes.len() as u64;
        let chunk = tokio::select! {
            biased;
            chunk = next_chunk(incoming) => chunk?,
            () = sleep_until(fast.ends), if budget.holds_more_than(reservation, total) => {
                budget.shrink(reservation, total);
                continue;
            }
            () = sleep_until(window.ends) => return Err(too_slow()),
        };
        let Some(chunk) = chunk else { return Ok(bytes) };
        window.add(chunk.len());
        fast.add(chunk.len());
        let total = total + chunk.len() as u64;
        if total > limit {
            return Err(too_large(limit));
        }
        if budget.grow(reservation, total).await? {
            // The client was not slow: we made it wait.
            window = Window::open(BODY_WINDOW, BODY_WINDOW_BYTES);
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// The next bytes; `None` at the end of the body.
async fn next_chunk(incoming: &mut Incoming) -> Result<Option<Bytes>, Problem> {
    loop {
        let Some(frame) = incoming.frame().await else { return Ok(None) };
        let frame =
            frame.map_err(|_| Problem::new(Code::BadRequest, "the body is incomplete or malformed"))?;
        if let Ok(chunk) = frame.into_data() {
            return Ok(Some(chunk));
        }
    }
}

/// A time in which a number of bytes must arrive. The next one begins as soon as they have.
struct Window {
    time: Duration,
    bytes: u64,
    ends: Instant,
    missing: u64,
}

impl Window {
    fn open(time: Duration, bytes: u64) -> Self {
        Self { time, bytes, ends: Instant::now() + time, missing: bytes }
    }

    fn add(&mut self, bytes: usize) {
        self.missing = self.missing.saturating_sub(bytes as u64);
        if self.missing == 0 {
            *self = Self::open(self.time, self.bytes);
        }
    }
}

fn too_slow() -> Problem {
    Problem::new(Code::RequestTimeout, "the body came too slowly: send at least 1 KiB a second")
}

/// A body shorter than its `Content-Length` is never applied. hyper reports that too; this doesn't rely on it.
fn check_complete(headers: &HeaderMap, bytes: usize) -> Result<(), Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|declared: u64| declared != bytes as u64) {
        return Err(Problem::new(Code::BadRequest, "the body is shorter than its Content-Length"));
    }
    Ok(())
}

fn too_large(limit: u64) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("a body has at most {limit} bytes here: send it in parts"))
}
