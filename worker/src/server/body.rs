//! Reads a body: complete, not too large, not too slow, and UTF-8.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap};
use sq_shared::limits::{BODY_WINDOW, BODY_WINDOW_BYTES};
use sq_shared::problem::{Code, Problem};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use crate::server::worker::Worker;

/// What all bodies that are being read may take together, in KiB: two of the largest.
pub(super) const ROOM_KIB: u32 = 128 * 1024;

/// A body of up to so many bytes needs no room of its own: as many as there may be connections take
/// 32 MiB, and so a slow large body never makes a small one wait.
const SMALL_BODY_BYTES: u64 = 64 * 1024;

/// How long a body waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(10);

/// A longer body that was refused is not waited for.
const DISCARD_BYTES: u64 = 1024 * 1024;

/// How long the rest of a refused body is waited for.
const DISCARD_TIME: Duration = Duration::from_millis(250);

/// The complete body as text.
pub(super) async fn read(
    worker: &Worker,
    headers: &HeaderMap,
    incoming: &mut Incoming,
) -> Result<String, Problem> {
    let limit = worker.body_bytes().unwrap_or(u64::MAX);
    let declared = incoming.size_hint().exact();
    if declared.is_some_and(|bytes| bytes > limit) {
        return Err(too_large(limit));
    }
    let _room = room(worker, declared.unwrap_or(limit)).await?;
    let bytes = collect(incoming, limit).await?;
    check_complete(headers, bytes.len())?;
    String::from_utf8(bytes).map_err(|error| {
        Problem::new(Code::InvalidUtf8, "the body is not UTF-8: SQ stores text only")
            .with("part", "body")
            .with("offset", error.utf8_error().valid_up_to())
    })
}

/// Lets the rest of a refused body come in, if it is short and already under way: closing a connection
/// that has unread bytes resets it, and the client might never see why it was refused.
pub(super) async fn discard(headers: &HeaderMap, incoming: &mut Incoming) {
    let is_short = incoming.size_hint().upper().is_some_and(|bytes| bytes <= DISCARD_BYTES);
    // A client that waits for a 100 (Continue) must not get one now.
    if !is_short || headers.contains_key(header::EXPECT) {
        return;
    }
    let rest = async { while let Some(Ok(_)) = incoming.frame().await {} };
    // Late bytes are the client's loss.
    let _ = timeout(DISCARD_TIME, rest).await;
}

async fn room(worker: &Worker, bytes: u64) -> Result<Option<SemaphorePermit<'_>>, Problem> {
    if bytes <= SMALL_BODY_BYTES {
        return Ok(None);
    }
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(ROOM_KIB).min(ROOM_KIB);
    match timeout(ROOM_WAIT, worker.body_room.acquire_many(kib)).await {
        Ok(Ok(permit)) => Ok(Some(permit)),
        _ => {
            let detail = "other large bodies are being read: try again, or send smaller ones";
            Err(Problem::new(Code::WorkerUnavailable, detail).retry_after_s(ROOM_WAIT.as_secs()))
        }
    }
}

async fn collect(incoming: &mut Incoming, limit: u64) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut window = Window::open();
    while let Some(chunk) = window.next_chunk(incoming).await? {
        if bytes.len() as u64 + chunk.len() as u64 > limit {
            return Err(too_large(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The time in which the next [`BODY_WINDOW_BYTES`] must come.
struct Window {
    ends: Instant,
    missing: u64,
}

impl Window {
    fn open() -> Self {
        Self { ends: Instant::now() + BODY_WINDOW, missing: BODY_WINDOW_BYTES }
    }

    /// The next bytes; `None` at the body's end.
    async fn next_chunk(&mut self, incoming: &mut Incoming) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = timeout_at(self.ends, incoming.frame()).await.map_err(|_| {
                Problem::new(Code::RequestTimeout, "the body came too slowly: send at least 1 KiB a second")
            })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame =
                frame.map_err(|_| Problem::new(Code::BadRequest, "the body is incomplete or malformed"))?;
            let Ok(chunk) = frame.into_data() else { continue };
            self.missing = self.missing.saturating_sub(chunk.len() as u64);
            if self.missing == 0 {
                *self = Self::open();
            }
            return Ok(Some(chunk));
        }
    }
}

/// A body shorter than its length is never acted on; hyper says so too, this makes it sure.
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
