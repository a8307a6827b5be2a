//! Turns outcomes, failures and problems into HTTP responses. The only place that maps a command's failure to a status.

use std::borrow::Cow;
use std::fmt::Write;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use sq_shared::headers::{self, lookup};
use sq_shared::problem::{Code, Problem};
use tracing::error;

use crate::api::outcome::{CommandError, Outcome};
use crate::api::stream::Stream;
use crate::server::activity::Busy;
use crate::server::answer_body::{AnswerBody, Content};
use crate::server::listing::ListingBody;
use crate::server::memory_budget::Reservation;
use crate::server::worker::Worker;
use crate::settings::MissingData;
use crate::store::{Damage, StoreError};

/// `Retry-After` of a disk failure that may pass.
const RETRY_AFTER_S: u64 = 5;

const JSON: &str = "application/json";

/// An answer that is not an HTTP response yet.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content: Content,
    fields: HeaderMap,
    /// What the answer pins in memory.
    memory: Arc<Reservation>,
}

impl Answer {
    fn ok(media_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self::with_content(media_type, Content::Whole(body.into()))
    }

    fn stream(media_type: &'static str, stream: Stream) -> Self {
        Self::with_content(media_type, stream.into_whole().map_or_else(Content::Stream, Content::Whole))
    }

    fn with_content(media_type: &'static str, content: Content) -> Self {
        let mut fields = HeaderMap::new();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        Self { status: 200, content, fields, memory: Arc::default() }
    }

    pub(super) fn not_modified(checksum: u128) -> Self {
        let fields = tag_field(checksum).into_iter().collect();
        Self { status: 304, content: Content::Whole(Bytes::new()), fields, memory: Arc::default() }
    }

    pub(super) fn health() -> Self {
        Self::ok(JSON, Bytes::from_static(br#"{"status":"ok"}"#))
    }

    /// `memory` is freed once the answer is written.
    pub(super) async fn from_outcome(
        worker: &Rc<Worker>,
        outcome: Outcome,
        memory: Arc<Reservation>,
    ) -> Result<Self, CommandError> {
        let answer = match outcome {
            Outcome::Text(text) => Self::ok(headers::PLAIN_TEXT, text),
            Outcome::TextStream(text) => Self::stream(headers::PLAIN_TEXT, text),
            Outcome::Json(json) => Self::stream(JSON, json),
            Outcome::Listing(phexts) => {
                let list = ListingBody::begin(worker, phexts).await?;
                Self::with_content(JSON, list.into_whole().map_or_else(Content::Listing, Content::Whole))
            }
            Outcome::Written { text, bytes, is_replay, checksum } => {
                let mut answer = Self::ok(headers::PLAIN_TEXT, text);
                answer.fields.insert(lookup::X_SQ_BYTES, bytes.into());
                answer.fields.extend(checksum.and_then(tag_field));
                if is_replay {
                    answer.fields.insert(lookup::IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
                }
                answer
            }
            Outcome::Scroll { text, checksum } => {
                let mut answer = Self::ok(headers::PLAIN_TEXT, text);
                answer.fields.extend(tag_field(checksum));
                answer
            }
            Outcome::Phext { text, checksum } => {
                let mut answer = Self::stream(headers::PLAIN_TEXT, text);
                answer.fields.extend(tag_field(checksum));
                answer
            }
        };
        Ok(Self { memory, ..answer })
    }

    pub(super) fn from_problem(problem: &Problem, request_id: &str) -> Self {
        let mut answer = Self::ok(headers::PROBLEM_JSON, problem.to_json(request_id));
        answer.status = problem.code.status();
        answer.fields.insert(lookup::X_SQ_CODE, HeaderValue::from_static(problem.code.as_str()));
        for (name, value) in problem.header_fields() {
            // Never fails: our values are visible ASCII.
            if let Ok(value) = HeaderValue::from_str(&value) {
                answer.fields.insert(name, value);
            }
        }
        answer
    }

    /// Adds the fields that every answer to a client carries. Under the pool, the gateway adds them.
    pub(super) fn add_common_fields(&mut self, request_id: HeaderValue) {
        self.fields.insert(lookup::X_REQUEST_ID, request_id);
        self.fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
}

/// A strong entity tag (RFC 9110, 8.8.3).
pub(super) fn entity_tag(checksum: u128) -> String {
    const TAG_BYTES: usize = 34;
    let mut tag = String::with_capacity(TAG_BYTES);
    // Writing to a string cannot fail.
    let _ = write!(tag, "\"{checksum:032x}\"");
    tag
}

/// The `ETag` field. Always `Some`, because a tag is a valid field value.
fn tag_field(checksum: u128) -> Option<(HeaderName, HeaderValue)> {
    Some((header::ETAG, entity_tag(checksum).try_into().ok()?))
}

/// The answer as an HTTP response. The worker is busy until it is written.
pub(super) fn response(answer: Answer, busy: Busy) -> Response<AnswerBody> {
    // Never out of range: every status is one of the contract's.
    let status = hyper::StatusCode::from_u16(answer.status).unwrap_or(hyper::StatusCode::SERVICE_UNAVAILABLE);
    let is_empty_text = answer.content.bytes() == Some(0) && status != hyper::StatusCode::NOT_MODIFIED;
    let mut response = Response::new(AnswerBody::new(answer.content, answer.memory, busy));
    *response.status_mut() = status;
    *response.headers_mut() = answer.fields;
    if is_empty_text {
        // hyper sets it for GET only, and HEAD must have the same fields.
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}

/// The problem that a client gets for a command's failure. Logs what the operator needs to know.
pub(super) fn problem_from(failure: &CommandError, request_id: &str) -> Problem {
    match failure {
        CommandError::AnswerTooLarge { bytes } => {
            let detail =
                format!("the answer would have {bytes} bytes: post fewer coordinates that do not exist");
            Problem::new(Code::InvalidParameter, detail)
        }
        CommandError::Store(StoreError::Damaged(damage)) => Problem::new(Code::WorkerUnavailable, damage_detail(damage)),
        CommandError::Store(StoreError::NotAsExpected) => Problem::new(
            Code::PreconditionFailed,
            "the scroll is not one that If-Match names (* names any that has a text; a weak tag, none), or If-None-Match: * \
             was to find none: read it again, and decide again",
        ),
        CommandError::Store(StoreError::TooFar { limit }) => too_far(*limit),
        CommandError::Store(StoreError::KeyReused) => Problem::new(
            Code::IdempotencyKeyReused,
            "this Idempotency-Key came with another write before: use a new one for each write",
        ),
        CommandError::Store(StoreError::TextTooLong { bytes }) => {
            Problem::new(Code::BodyTooLarge, format!("a text of {bytes} bytes is too long: send it in parts"))
        }
        CommandError::Store(StoreError::NotYet) => {
            Problem::new(Code::WorkerUnavailable, "the server's disk takes long to read or save what is needed: try again")
                .retry_after_s(RETRY_AFTER_S)
        }
        CommandError::Store(StoreError::QuotaExceeded { used, quota }) => over_quota(
            "the write needs more than the quota leaves: delete or shorten scrolls (a phext with a text takes 4 KiB at least)",
            *used,
            Some(*quota),
        ),
        CommandError::Store(StoreError::TooManyPhexts { phexts, limit, used, quota }) => over_quota(
            format!("the tenant may have {limit} phexts, and has {phexts}: write to one of them, delete all that is in one, or ask the operator for more"),
            *used,
            *quota,
        )
        .with("phexts", *phexts)
        .with("phexts_limit", *limit),
        CommandError::Store(StoreError::DiskFull { used, quota }) => {
            error!(request_id, "the disk is full");
            Problem::new(Code::DiskFull, "the server's disk is full: nothing was written; tell its operator")
                .with("used", *used)
                .with("quota", *quota)
        }
        CommandError::Store(StoreError::Unwritable) => lasting(
            failure,
            request_id,
            "the server's disk, or a file of this phext, can only be read: nothing was written, and reads go on; tell \
             the server's operator",
        ),
        CommandError::Store(StoreError::Blocked) => lasting(
            failure,
            request_id,
            "a temporary file of this phext (.phext.tmp or .journal.tmp) is not a plain file, and is in the way: \
             nothing was written; tell the server's operator to remove it",
        ),
        CommandError::Store(StoreError::Io(error)) if is_out_of_reach(error) => lasting(
            failure,
            request_id,
            "the server may not open a file of this phext: nothing was read or written; tell the server's operator",
        ),
        CommandError::Store(StoreError::Io(_) | StoreError::InDoubt) => {
            unavailable(failure, request_id, "the server's disk failed: nothing was acknowledged")
        }
    }
}

fn too_far(limit: u32) -> Problem {
    let detail = format!(
        "a new scroll's coordinate has parts of 1 to {limit} here (scrolls that are there already may be written): take a \
         nearer one, or ask the operator for a higher limits.coordinate"
    );
    Problem::new(Code::InvalidCoordinate, detail)
}

fn over_quota(detail: impl Into<Cow<'static, str>>, used: u64, quota: Option<u64>) -> Problem {
    Problem::new(Code::QuotaExceeded, detail).with("used", used).with("quota", quota)
}

/// Whether a file stays inaccessible until the operator changes its mode, owner or folder.
fn is_out_of_reach(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotADirectory | NotFound | PermissionDenied)
}

/// The answer to every command while the tenant's data is missing. No `Retry-After`: it lasts until the operator acts.
pub(super) fn missing_data(missing: MissingData) -> Problem {
    let detail = match missing {
        MissingData::DataRoot => {
            "the server's data disk is missing or not mounted: nothing was read or written, and what is stored there is \
             not touched; tell the server's operator"
        }
        MissingData::Directory => {
            "the directory with this tenant's phexts is missing on the server: nothing was read or written; tell the \
             server's operator, who restores it"
        }
    };
    Problem::new(Code::DataRootMissing, detail)
}

fn damage_detail(damage: &Damage) -> String {
    match damage {
        Damage::Keys(_) => format!(
            "{damage}. No phext is written, because a write that comes again could be made twice; reads go on. The \
             server's operator finds the place with sq-worker fsck, and mends or moves the file"
        ),
        _ => format!(
            "{damage}. It is neither read nor overwritten; the server's operator finds the place with sq-worker fsck, and \
             mends or replaces the file. Other phexts are served"
        ),
    }
}

/// A failure that lasts until the operator acts: no `Retry-After`.
fn lasting(failure: &CommandError, request_id: &str, detail: &'static str) -> Problem {
    error!(%failure, request_id, "command failed");
    Problem::new(Code::WorkerUnavailable, detail)
}

fn unavailable(failure: &CommandError, request_id: &str, detail: &'static str) -> Problem {
    lasting(failure, request_id, detail).retry_after_s(RETRY_AFTER_S)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::activity::Activity;

    #[test]
    fn only_an_error_has_a_code_field() {
        let busy = || Arc::new(Activity::new()).busy();
        let refused = Answer::from_problem(&Problem::new(Code::MissingParameter, "say p="), "id");
        let refused = response(refused, busy());
        assert_eq!(refused.headers().get("x-sq-code").unwrap(), "missing_parameter");
        let served = response(Answer::health(), busy());
        assert!(served.headers().get("x-sq-code").is_none());
    }
}
