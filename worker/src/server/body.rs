//! Reads a body: complete, not too large, not too slow, and UTF-8.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap};
use sq_shared::limits::{BODY_WINDOW, BODY_WINDOW_BYTES};
use sq_shared::problem::{Code, Problem};
use tokio::time::{Instant, sleep_until, timeout};

use crate::server::room::{Room, Share};
use crate::server::worker::Worker;

/// What all bodies that are being read may take together, in KiB: two of the largest.
const ROOM_KIB: u32 = 128 * 1024;

/// A body whose length is known has room for all of it from the beginning, so that several quick ones do not each stop
/// half-way for want of room. It keeps that room only as long as it brings [`QUICK_BYTES`] in this time: who only
/// announces a body must not keep others out. Fewer than 10 s, the wait for room, are needed to pass over as many
/// of them as a tenant may have in flight by default.
const QUICK_WINDOW: Duration = Duration::from_millis(250);

/// 1 MiB a second.
const QUICK_BYTES: u64 = 256 * 1024;

/// A longer body that was refused is not waited for.
const DISCARD_BYTES: u64 = 1024 * 1024;

/// How long the rest of a refused body is waited for.
const DISCARD_TIME: Duration = Duration::from_millis(250);

/// The room of all bodies.
pub(super) fn room() -> Room {
    Room::new(ROOM_KIB, "other large bodies are being read: try again, or send smaller ones")
}

/// The complete body as text.
pub(super) async fn read(
    worker: &Worker,
    headers: &HeaderMap,
    incoming: &mut Incoming,
) -> Result<String, Problem> {
    // Most requests have none, and need no clock for it.
    if incoming.is_end_stream() {
        return Ok(String::new());
    }
    let limit = worker.body_bytes().unwrap_or(u64::MAX);
    let declared = incoming.size_hint().exact();
    if declared.is_some_and(|bytes| bytes > limit) {
        return Err(too_large(limit));
    }
    // A body of unknown length takes its room as it comes, as slow ones do.
    let mut share = worker.body_room.take(declared.unwrap_or(0)).await?;
    let bytes = collect(incoming, limit, &worker.body_room, &mut share).await?;
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

async fn collect(
    incoming: &mut Incoming,
    limit: u64,
    room: &Room,
    share: &mut Share,
) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut window = Window::open(BODY_WINDOW, BODY_WINDOW_BYTES);
    let mut quick = Window::open(QUICK_WINDOW, QUICK_BYTES);
    loop {
        let total = bytes.len() as u64;
        let chunk = tokio::select! {
            biased;
            chunk = next_chunk(incoming) => chunk?,
            () = sleep_until(quick.ends), if room.holds_more_than(share, total) => {
                room.shrink(share, total);
                continue;
            }
            () = sleep_until(window.ends) => return Err(too_slow()),
        };
        let Some(chunk) = chunk else { return Ok(bytes) };
        window.bring(chunk.len());
        quick.bring(chunk.len());
        let total = total + chunk.len() as u64;
        if total > limit {
            return Err(too_large(limit));
        }
        if room.grow(share, total).await? {
            // The wait was ours, not the client's.
            window = Window::open(BODY_WINDOW, BODY_WINDOW_BYTES);
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// The next bytes; `None` at the body's end.
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

/// The time in which some bytes must come; then the next begins.
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

    fn bring(&mut self, bytes: usize) {
        self.missing = self.missing.saturating_sub(bytes as u64);
        if self.missing == 0 {
            *self = Self::open(self.time, self.bytes);
        }
    }
}

fn too_slow() -> Problem {
    Problem::new(Code::RequestTimeout, "the body came too slowly: send at least 1 KiB a second")
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
