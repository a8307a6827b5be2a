//! What goes back: outcomes, failures and problems as HTTP. The only place that knows which status a
//! failure of a command has.

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use sq_shared::headers;
use sq_shared::problem::{Code, Problem};
use tracing::error;

use crate::api::{Failure, Outcome};
use crate::server::activity::Busy;
use crate::server::room::{Room, Share};
use crate::store::StoreError;

/// The body of every answer.
pub(super) type AnswerBody = Full<Bytes>;

/// What all large answers that are being written may take together, in KiB: four scrolls of the longest body
/// by default. Without it, as many clients as may be in flight could each have one, and read it slowly.
const ROOM_KIB: u32 = 256 * 1024;

/// After how many seconds a failure of the disk may have passed.
const RETRY_AFTER_S: u64 = 5;

/// The room of all answers.
pub(super) fn room() -> Room {
    Room::new(ROOM_KIB, "other large answers are being sent: try again, or ask for less at once")
}

/// An answer before it is HTTP.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
    fields: Vec<(HeaderName, HeaderValue)>,
    room: Share,
}

impl Answer {
    fn ok(media_type: &'static str, body: Bytes) -> Self {
        let media_type = (header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        Self { status: 200, body, fields: vec![media_type], room: Share::default() }
    }

    pub(super) fn health() -> Self {
        Self::ok("application/json", Bytes::from_static(br#"{"status":"ok"}"#))
    }

    /// `room` is given back once the answer is written.
    pub(super) fn of_outcome(outcome: Outcome, room: Share) -> Self {
        let answer = match outcome {
            Outcome::Text(text) => Self::ok(headers::PLAIN_TEXT, text),
            Outcome::Json(json) => Self::ok("application/json", json),
            Outcome::Scroll { text, checksum } => {
                let mut answer = Self::ok(headers::PLAIN_TEXT, text);
                answer.push(header::ETAG, &format!("\"{checksum}\""));
                answer
            }
        };
        Self { room, ..answer }
    }

    pub(super) fn of_problem(problem: &Problem, request_id: &str) -> Self {
        let mut answer = Self::ok(headers::PROBLEM_JSON, problem.to_json(request_id).into());
        answer.status = problem.code.status();
        answer.push(headers::X_SQ_CODE, problem.code.as_str());
        for (name, value) in problem.header_fields() {
            answer.push(name, &value);
        }
        answer
    }

    /// Our own names are tokens, and our own values visible ASCII; another would be left out.
    fn push(&mut self, name: impl TryInto<HeaderName>, value: &str) {
        if let (Ok(name), Ok(value)) = (name.try_into(), HeaderValue::from_str(value)) {
            self.fields.push((name, value));
        }
    }
}

/// The bytes of an answer, and what lasts until they are written or given up: hyper lets go of a body as
/// soon as it has its bytes, but of these only when the last one is in the kernel.
struct Held {
    bytes: Bytes,
    _room: Share,
    _busy: Busy,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The answer with what every answer carries. The worker is busy until it is written.
pub(super) fn response(mut answer: Answer, request_id: &str, busy: Busy) -> Response<AnswerBody> {
    answer.push(headers::X_REQUEST_ID, request_id);
    answer.push(header::CACHE_CONTROL, "no-store");
    answer.push(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    let held = Held { bytes: answer.body, _room: answer.room, _busy: busy };
    let mut response = Response::new(Full::new(Bytes::from_owner(held)));
    // Every status is one of the contract's; none of them is out of range.
    *response.status_mut() =
        hyper::StatusCode::from_u16(answer.status).unwrap_or(hyper::StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().extend(answer.fields);
    response
}

/// How a command's failure looks to a client; what the operator needs to know is logged here.
pub(super) fn problem_of(failure: &Failure) -> Problem {
    match failure {
        Failure::AnswerTooLarge { bytes } => {
            let detail =
                format!("the answer would have {bytes} bytes: post fewer coordinates that do not exist");
            Problem::new(Code::InvalidParameter, detail)
        }
        Failure::Json(_) => unavailable(failure, "the answer cannot be written as JSON"),
        Failure::Store(StoreError::Damaged(damage)) => {
            let detail = format!(
                "the phext's file is damaged ({damage}), and is neither read nor overwritten; \
                 mend or replace the file. Other phexts are served"
            );
            Problem::new(Code::WorkerUnavailable, detail).retry_after_s(RETRY_AFTER_S)
        }
        Failure::Store(StoreError::QuotaExceeded { used, quota }) => Problem::new(
            Code::QuotaExceeded,
            "the write needs more than the quota leaves: delete or shorten scrolls",
        )
        .with("used", *used)
        .with("quota", *quota),
        Failure::Store(StoreError::DiskFull { used, quota }) => {
            error!("the disk is full");
            Problem::new(Code::DiskFull, "the server's disk is full: nothing was written; tell its operator")
                .with("used", *used)
                .with("quota", *quota)
        }
        Failure::Store(StoreError::Io(_) | StoreError::InDoubt) => {
            unavailable(failure, "the server's disk failed: nothing was acknowledged")
        }
    }
}

fn unavailable(failure: &Failure, detail: &'static str) -> Problem {
    error!(%failure, "a command failed");
    Problem::new(Code::WorkerUnavailable, detail).retry_after_s(RETRY_AFTER_S)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::server::activity::Activity;

    #[test]
    fn an_error_has_its_code_in_a_field_and_nothing_else_has_it() {
        let busy = || Arc::new(Activity::new()).busy();
        let refused = Answer::of_problem(&Problem::new(Code::MissingParameter, "say p="), "id");
        let refused = response(refused, "id", busy());
        assert_eq!(refused.headers().get("x-sq-code").unwrap(), "missing_parameter");
        let served = response(Answer::health(), "id", busy());
        assert!(served.headers().get("x-sq-code").is_none());
    }
}
