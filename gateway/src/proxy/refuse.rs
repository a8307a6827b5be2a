//! Turns the error of any step into an answer.

use http::header;
use pingora::http::ResponseHeader;
use pingora::protocols::http::v1::server::HttpSession as Session;
use sq_shared::content::UnsupportedContent;
use sq_shared::credential::CredentialError;
use sq_shared::headers::PROBLEM_JSON;
use sq_shared::idempotency::InvalidIdempotencyKey;
use sq_shared::problem::{Code, Problem};

use super::authenticate::AuthenticateError;
use super::body::BodyError;
use super::context::Context;
use super::route::RouteError;
use super::utf8::InvalidUtf8;
use super::{answer, connection};
use crate::audit::AuditUnavailable;
use crate::audit::outcome::WriteOutcome;
use crate::audit::route::RouteDraft;
use crate::limits::LimitError;

/// The seconds after which an operator may have freed space for the audit log.
const AUDIT_RETRY_S: u64 = 5;

/// Why the gateway refuses a request.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Refusal {
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

/// Why a worker gave no answer, as its client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// It died during each attempt at a write, which may have been applied.
    #[error("the worker died")]
    Failed,
    /// It died during a write, which may have been applied and whose body is too long to be sent again.
    #[error("the worker died, and the body is too long to be sent again")]
    FailedWithLongBody,
    /// It could not be reached; or it died during each attempt at a read, or gave it no valid answer.
    #[error("the worker is not available")]
    Unavailable,
    /// Its answer to a write is invalid.
    #[error("the worker's answer is invalid")]
    InvalidAnswer,
    #[error("the worker did not answer in time")]
    Timeout,
}

impl Refusal {
    pub(crate) fn problem(&self) -> Problem {
        match self {
            Self::Credential(error) => error.problem(),
            Self::Authenticate(error) => authenticate_problem(*error),
            Self::Limit(error) => error.problem(),
            Self::Utf8(error) => error.problem(),
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
        BodyError::InvalidUtf8(error) => error.problem(),
        BodyError::Malformed => Problem::new(Code::BadRequest, "The body's framing is malformed."),
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

/// Answers with a refusal, after the end of the request's audit line, if it has one.
pub(crate) async fn answer(
    session: &mut Session,
    ctx: &mut Context<'_>,
    line: Option<&mut RouteDraft>,
    refusal: &Refusal,
) {
    if let Refusal::Limit(error) = refusal {
        match *error {
            LimitError::PerIp(status) => ctx.ip_rate = Some(status),
            LimitError::PerTenant(status) => ctx.tenant_rate = Some(status),
            LimitError::FailedKeys(status) => ctx.failed_keys_rate = Some(status),
            LimitError::InFlight(_) => {}
        }
    }
    let problem = refusal.problem();
    ctx.code = Some(problem.code);
    if let Some(line) = line {
        line.end(&WriteOutcome::refused(problem.code.status())).await;
    }
    match write(session, ctx, &problem).await {
        Ok(()) => connection::linger(session, ctx).await,
        Err(error) => {
            // The client does not read its answer: close.
            session.set_server_keepalive(None);
            tracing::debug!(error = error.reason_str(), "client disconnected before its answer");
        }
    }
}

async fn write(session: &mut Session, ctx: &Context<'_>, problem: &Problem) -> pingora::Result<()> {
    let mut head = ResponseHeader::build(problem.code.status(), Some(16))?;
    head.insert_header(header::CONTENT_TYPE, PROBLEM_JSON)?;
    for (name, value) in problem.header_fields() {
        head.insert_header(name, value.as_ref())?;
    }
    answer::write(session, ctx, head, problem.to_json(ctx.request_id_text())).await
}
