//! Every refusal becomes an answer here, and only here.

use std::time::Instant;

use http::header;
use pingora::http::ResponseHeader;
use pingora::protocols::http::v1::server::HttpSession as Session;
use pingora::{Error, ErrorSource, ErrorType};
use sq_shared::content::UnsupportedContent;
use sq_shared::credential::CredentialError;
use sq_shared::headers::PROBLEM_JSON;
use sq_shared::idempotency::InvalidIdempotencyKey;
use sq_shared::limits::{HEADER_FIELDS, LINGER_BYTES, LINGER_TIME};
use sq_shared::problem::{Code, Problem};

use super::answer;
use super::authenticate::AuthenticateError;
use super::body::BodyError;
use super::context::Context;
use super::limit::LimitError;
use super::route::RouteError;
use super::utf8::InvalidUtf8;
use crate::audit::AuditUnavailable;
use crate::audit::ending::Ending;
use crate::edge::head::HeadError;

/// After how many seconds an operator may have made room for the audit log.
const AUDIT_RETRY_S: u64 = 5;

/// Why a request is not served.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is the error of the step that it is named after")]
pub enum Refusal {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Authenticate(#[from] AuthenticateError),
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(transparent)]
    Utf8(#[from] InvalidUtf8),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    IdempotencyKey(#[from] InvalidIdempotencyKey),
    #[error(transparent)]
    Content(#[from] UnsupportedContent),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Audit(#[from] AuditUnavailable),
    #[error("shutting down")]
    ShuttingDown,
    #[error("the data root is missing")]
    DataRootMissing,
    #[error("not ready: {0}")]
    NotReady(&'static str),
}

/// What a worker did instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// It died, again and again, under a write that may have been applied.
    #[error("the worker died")]
    Failed,
    /// It died under a write that may have been applied, and whose body is too long to be sent again.
    #[error("the worker died, and the body is too long to be sent again")]
    FailedWithLongBody,
    /// It could not be reached, or died under a request that changes nothing, again and again, or gave it no valid answer.
    #[error("the worker is not there")]
    Unavailable,
    /// What it answered to a write is not an answer.
    #[error("the worker's answer is not valid")]
    InvalidAnswer,
    /// It did not answer in time.
    #[error("the worker did not answer in time")]
    Timeout,
}

impl Refusal {
    /// Status, code and what the client should do.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Head(error) => head_problem(*error),
            Self::Credential(error) => error.problem(),
            Self::Authenticate(error) => authenticate_problem(*error),
            Self::Limit(error) => limit_problem(*error),
            Self::Utf8(error) => utf8_problem(*error),
            Self::Route(error) => route_problem(*error),
            Self::IdempotencyKey(error) => error.problem(),
            Self::Content(error) => error.problem(),
            Self::Body(error) => body_problem(*error),
            Self::Upstream(error) => upstream_problem(*error),
            Self::Audit(error) => audit_problem(*error),
            Self::ShuttingDown => {
                Problem::new(Code::ShuttingDown, "The gateway is stopping. Try again.").retry_after_s(1)
            }
            Self::DataRootMissing => Problem::new(
                Code::DataRootMissing,
                "The server's data disk is missing or not mounted: nothing was read or written, and what is stored there \
                 is not touched. Tell your host.",
            ),
            Self::NotReady(reason) => Problem::new(Code::WorkerUnavailable, *reason).retry_after_s(1),
        }
    }
}

fn head_problem(error: HeadError) -> Problem {
    match error {
        HeadError::Malformed(what) => Problem::new(Code::BadRequest, what),
        HeadError::InvalidUtf8(error) => utf8_problem(error),
        HeadError::UriTooLong { limit_bytes } => {
            Problem::new(Code::UriTooLong, format!("The request line is longer than {limit_bytes} bytes."))
        }
        HeadError::TooLarge { limit_bytes } => {
            let detail = format!("Request line and headers together are longer than {limit_bytes} bytes.");
            Problem::new(Code::HeadersTooLarge, detail)
        }
        HeadError::TooManyFields => {
            let detail = format!("The request has more than {HEADER_FIELDS} header fields.");
            Problem::new(Code::HeadersTooLarge, detail)
        }
        HeadError::TooSlow { limit } => {
            let detail = format!("The request's head was not complete after {} s.", limit.as_secs_f32());
            Problem::new(Code::RequestTimeout, detail)
        }
        HeadError::Connect => Problem::new(Code::MethodNotAllowed, "CONNECT is not served here.")
            .allow("GET, HEAD, POST, OPTIONS"),
    }
}

fn authenticate_problem(error: AuthenticateError) -> Problem {
    match error {
        AuthenticateError::Unknown => {
            Problem::new(Code::InvalidKey, "This key is not known. Check it, or ask your host for a new one.")
        }
        AuthenticateError::Expired => {
            Problem::new(Code::ExpiredKey, "This key has expired. Ask your host for a new one.")
        }
        AuthenticateError::Suspended => {
            Problem::new(Code::TenantSuspended, "This tenant is suspended. Ask your host.")
        }
        AuthenticateError::Reserved => {
            Problem::new(Code::TenantReserved, "This tenant is not active yet. Ask your host.")
        }
    }
}

/// A limit's refusal as the client reads it.
pub fn limit_problem(error: LimitError) -> Problem {
    let over = |code, whose: &str, standing: super::limit::Standing| {
        let detail = format!("{whose} {}. Try again in {} s.", standing.rate, standing.reset_s);
        Problem::new(code, detail).retry_after_s(standing.reset_s)
    };
    match error {
        LimitError::PerIp(standing) => over(Code::RateLimitedIp, "One address may send", standing),
        LimitError::PerTenant(standing) => over(Code::RateLimitedTenant, "This tenant may send", standing),
        LimitError::FailedKeys(standing) => {
            over(Code::TooManyFailedKeys, "One address may try wrong keys at", standing)
        }
        LimitError::InFlight(count) => {
            let detail =
                format!("This tenant may have {count} requests in flight. Wait for an answer first.");
            Problem::new(Code::TooManyInFlight, detail).retry_after_s(1)
        }
    }
}

fn utf8_problem(error: InvalidUtf8) -> Problem {
    let detail = format!("The {} is not UTF-8 at byte {}. Send UTF-8.", error.part, error.offset);
    Problem::new(Code::InvalidUtf8, detail).with("offset", error.offset).with("part", error.part)
}

fn route_problem(error: RouteError) -> Problem {
    match error {
        RouteError::Unknown => {
            Problem::new(Code::UnknownRoute, "There is no such path. Those there are begin with /api/v2/.")
        }
        RouteError::Method(methods) => {
            let detail = format!("This path takes {}.", methods.allow_header());
            Problem::new(Code::MethodNotAllowed, detail).allow(methods.allow_header())
        }
        RouteError::HealthMethod => {
            Problem::new(Code::MethodNotAllowed, "This path takes GET and HEAD.").allow("GET, HEAD, OPTIONS")
        }
        RouteError::ReadOnlyKey => {
            Problem::new(Code::ReadOnlyKey, "This key may only read. Use one that may write.")
        }
    }
}

fn body_problem(error: BodyError) -> Problem {
    match error {
        BodyError::InvalidUtf8(error) => utf8_problem(error),
        BodyError::TooLarge { limit_bytes } => {
            Problem::new(Code::BodyTooLarge, format!("The body is larger than {limit_bytes} bytes."))
                .with("limit", limit_bytes)
        }
        BodyError::TooSlow => {
            Problem::new(Code::RequestTimeout, "The body comes slower than 1 KiB/s over 10 s.")
        }
    }
}

fn audit_problem(error: AuditUnavailable) -> Problem {
    match error {
        AuditUnavailable::Failing => Problem::new(
            Code::WorkerUnavailable,
            "The audit log cannot be written, and without it no write is taken: nothing was changed. Reads go \
             on. Try again, or tell your host.",
        )
        .retry_after_s(AUDIT_RETRY_S),
        AuditUnavailable::Full => Problem::new(
            Code::WorkerUnavailable,
            "Too many writes wait for the audit log, and without it no write is taken: nothing was changed. Try \
             again.",
        )
        .retry_after_s(1),
    }
}

fn upstream_problem(error: UpstreamError) -> Problem {
    match error {
        UpstreamError::Failed => Problem::new(
            Code::WorkerFailed,
            "The worker died during this write each time it was sent. It may have been applied: repeat it with \
             the same Idempotency-Key, or, if it had none, read the scroll first.",
        ),
        UpstreamError::FailedWithLongBody => Problem::new(
            Code::WorkerFailed,
            "The worker died during this write, and a body of more than 64 KiB is not sent again. It may have \
             been applied: repeat it with the same Idempotency-Key, or, if it had none, read the scroll \
             first, and give long writes an Idempotency-Key.",
        ),
        UpstreamError::InvalidAnswer => Problem::new(
            Code::WorkerFailed,
            "The worker's answer to this write was not valid. The write may have been applied: repeat it with the \
             same Idempotency-Key, or, if it had none, read the scroll first.",
        ),
        UpstreamError::Unavailable => {
            let detail = "The tenant's worker cannot be reached, or does not answer as it should. Try again.";
            Problem::new(Code::WorkerUnavailable, detail).retry_after_s(1)
        }
        UpstreamError::Timeout => Problem::new(
            Code::WorkerTimeout,
            "The tenant's worker did not answer in time. Read before you repeat a write.",
        ),
    }
}

/// What an error of pingora means for the client; `None` when the client is gone, and no answer would reach it.
///
/// `unanswered` is what to say of a write that a worker has got and that may be applied; `None` when it is none.
pub fn of_proxy_error(error: &Error, unanswered: Option<UpstreamError>) -> Option<Refusal> {
    use ErrorType::{
        ConnectionClosed, InvalidHTTPHeader, ReadError, ReadTimedout, WriteError, WriteTimedout,
    };
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ReadTimedout) => Some(BodyError::TooSlow.into()),
        (ErrorSource::Downstream, ReadError | WriteError | WriteTimedout | ConnectionClosed) => None,
        (ErrorSource::Downstream, _) => Some(HeadError::Malformed("The body's framing is malformed.").into()),
        (ErrorSource::Upstream, ReadTimedout | WriteTimedout) => Some(UpstreamError::Timeout.into()),
        (ErrorSource::Upstream, InvalidHTTPHeader) if unanswered.is_some() => {
            Some(UpstreamError::InvalidAnswer.into())
        }
        _ => Some(unanswered.unwrap_or(UpstreamError::Unavailable).into()),
    }
}

/// An error of pingora's for the log. Its contexts quote what was read, such as the head of a worker's answer with a scroll
/// behind it, so the log has only where and what it was, and the system's reason.
pub fn logged(error: &Error) -> String {
    let io_error = error.root_cause().downcast_ref::<std::io::Error>();
    let reason = io_error.map(|error| format!(": {}", error.kind())).unwrap_or_default();
    format!("{} {}{reason}", error.source_str(), error.reason_str()).trim_start().to_owned()
}

/// Answers with a refusal, unless an answer has begun.
pub async fn answer(session: &mut Session, ctx: &mut Context, refusal: &Refusal) {
    if session.response_written().is_some_and(|head| !head.status.is_informational()) {
        return;
    }
    if let Refusal::Limit(error) = refusal {
        match *error {
            LimitError::PerIp(standing) => ctx.ip_standing = Some(standing),
            LimitError::PerTenant(standing) => ctx.tenant_standing = Some(standing),
            LimitError::FailedKeys(standing) => ctx.failed_keys_standing = Some(standing),
            LimitError::InFlight(_) => {}
        }
    }
    let problem = refusal.problem();
    ctx.code = Some(problem.code);
    ctx.end_audit_line(&Ending::refused(problem.code.status())).await;
    match write(session, ctx, &problem).await {
        Ok(()) => linger(session, ctx).await,
        Err(error) => {
            // Who does not read is not listened to either.
            session.set_server_keepalive(None);
            tracing::debug!(error = logged(&error), "the client was gone before its answer");
        }
    }
}

async fn write(session: &mut Session, ctx: &Context, problem: &Problem) -> pingora::Result<()> {
    let mut head = ResponseHeader::build(problem.code.status(), Some(16))?;
    head.insert_header(header::CONTENT_TYPE, PROBLEM_JSON)?;
    for (name, value) in problem.header_fields() {
        head.insert_header(name, value.as_ref())?;
    }
    answer::write(session, ctx, head, problem.to_json(ctx.request_id_text())).await
}

/// Reads on for a while: closing at once would make the kernel reset the connection, and the reset can overtake the
/// answer (RFC 9112, 9.6). Who still sends then is not waited for: pingora would read its body to the end.
pub(super) async fn linger(session: &mut Session, ctx: &mut Context) {
    if session.is_body_done() {
        return;
    }
    ctx.answered = Some(Instant::now());
    let discard = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            match session.read_body_bytes().await {
                Ok(Some(piece)) => left = left.saturating_sub(piece.len()),
                _ => return,
            }
        }
        // A proxy that sends as fast as it is read from looks for an answer only when it is held up. So the connection is
        // neither read nor closed for the rest of the time: a reset would be 502 to the client.
        std::future::pending::<()>().await;
    };
    let _ = tokio::time::timeout(LINGER_TIME, discard).await;
    if !session.is_body_done() {
        session.set_server_keepalive(None);
    }
}
