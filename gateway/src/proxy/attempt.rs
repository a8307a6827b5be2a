//! One attempt at a request, and what follows from how it ended.

use std::time::{Duration, Instant};

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession as UpstreamSession;
use pingora::protocols::http::v1::server::HttpSession as Session;
use sq_shared::headers::lookup::X_SQ_CODE;
use sq_shared::problem::Code;

use super::admit::Admitted;
use super::authenticate::AuthenticateError;
use super::context::Context;
use super::exchange::Exchange;
use super::failure::{Failure, WorkerError};
use super::refuse::{Refusal, UpstreamError};
use super::repeat::Retry;
use super::route::{self, Upstream};
use super::upstream_pool::{self, UpstreamPool};
use super::{connection, forward, worker_answer, worker_socket};
use crate::audit::outcome::WriteOutcome;

/// How an attempt ended.
pub(super) enum Attempt {
    /// The client has the worker's whole answer.
    Answered,
    /// There is no answer, and the request is sent again.
    Retry(Retry),
    /// There is no answer from the worker, and the gateway gives its own.
    Refused(Refusal),
    /// The answer began and was cut off.
    CutOff,
    /// The client disconnected before its answer began.
    ClientGone,
}

/// Sends the request to its worker once, and the worker's answer to the client.
pub(super) async fn attempt(
    session: &mut Session,
    ctx: &mut Context<'_>,
    admitted: &mut Admitted,
    pool: &UpstreamPool,
) -> Attempt {
    let upstream = route::upstream(&admitted.tenant, &ctx.directory);
    let mut connection = match connect(&upstream, ctx, admitted, pool).await {
        Ok(stream) => UpstreamSession::new(stream),
        Err(error) => return after_worker_error(&error, session, ctx, admitted, upstream.answer),
    };
    match exchange(session, &mut connection, ctx, admitted, upstream.answer).await {
        Ok(is_whole_sent) => {
            connection.respect_keepalive();
            if is_whole_sent && let Some(stream) = connection.reuse().await {
                pool.keep(&upstream, stream);
            }
            Attempt::Answered
        }
        Err(Failure::ClientGone) => Attempt::ClientGone,
        Err(Failure::Body(error)) => Attempt::Refused(error.into()),
        Err(Failure::CutOff(None)) => Attempt::CutOff,
        Err(Failure::CutOff(Some(error))) => {
            worker_socket::forget_unsent(connection.stream());
            let (tenant, request_id) = (admitted.tenant.name(), ctx.request_id_text());
            tracing::warn!(tenant, %error, request_id, "the worker's answer was cut off");
            Attempt::CutOff
        }
        Err(Failure::Worker(error)) => {
            worker_socket::forget_unsent(connection.stream());
            after_worker_error(&error, session, ctx, admitted, upstream.answer)
        }
    }
}

/// A connection to the worker. A repeat gets a new one: the kept ones may have died with the same worker, and each of them would
/// cost an attempt.
async fn connect(
    upstream: &Upstream,
    ctx: &Context<'_>,
    admitted: &Admitted,
    pool: &UpstreamPool,
) -> Result<Stream, WorkerError> {
    let kept = if admitted.attempts.is_repeat() { None } else { pool.take(upstream) };
    match kept {
        Some(stream) => Ok(stream),
        None => {
            let left = ctx.worker_wait.left(upstream.answer, Instant::now());
            upstream_pool::connect(upstream, left).await
        }
    }
}

/// One exchange on this connection. Returns whether the worker got the whole request.
async fn exchange(
    session: &mut Session,
    upstream: &mut UpstreamSession,
    ctx: &mut Context<'_>,
    admitted: &mut Admitted,
    answer_limit: Duration,
) -> Result<bool, Failure> {
    let head = forward::request_head(session.req_header(), admitted, &ctx.request_id, ctx.trace)
        .map_err(|error| internal(&error))?;
    admitted.is_sent = true;
    let mut exchange = Exchange::begin(session, upstream, ctx, admitted, head, answer_limit).await?;
    exchange.wait_for_head().await?;
    let head = answer_head(&mut exchange).await?;
    if connection::ends_with_connection(&head, exchange.session.req_header()) {
        exchange.session.set_server_keepalive(None);
    }
    match exchange.pass_on(head).await {
        Ok(()) => Ok(exchange.is_whole_sent()),
        Err(Failure::Worker(error)) => Err(Failure::CutOff(Some(error))),
        Err(_) => Err(Failure::CutOff(None)),
    }
}

/// The head of the client's answer, made from the worker's. The write's audit line is written first.
async fn answer_head(exchange: &mut Exchange<'_, '_>) -> Result<ResponseHeader, WorkerError> {
    let Exchange { session, upstream, ctx, admitted, .. } = exchange;
    let worker = upstream.resp_header().ok_or(WorkerError::Invalid("it has no head".into()))?;
    worker_answer::check(worker).map_err(WorkerError::Invalid)?;
    if worker.status == StatusCode::UNAUTHORIZED {
        return Err(WorkerError::KeyRefused);
    }
    let code = worker.headers.get(X_SQ_CODE).and_then(|value| value.to_str().ok());
    let code = code.and_then(Code::from_text).filter(|code| code.status() == worker.status.as_u16());
    if code == Some(Code::DataRootMissing) && admitted.attempts.is_repeat() && admitted.may_be_applied() {
        return Err(WorkerError::DataRootMissing);
    }
    ctx.worker_wait.answered();
    ctx.code = code;
    let has_key = admitted.keys.as_ref().is_some_and(|keys| keys.of_client.is_some());
    let head =
        forward::answer_head(worker, session.req_header(), ctx, has_key).map_err(|error| internal(&error))?;
    admitted.audited.line().end(&WriteOutcome::answered(worker, has_key)).await;
    connection::before_answer(session, ctx);
    Ok(head)
}

fn internal(error: &pingora::Error) -> WorkerError {
    // Its contexts may quote what a client sent.
    WorkerError::Internal(error.reason_str().to_owned())
}

/// Whether the request is sent again after this error, or what its client is told.
///
/// It is sent again when its worker died before an answer began. A write may have been applied by then: the next worker
/// recognises it by its keys, and answers without applying it twice. An answer is final, however: a worker that says 503
/// because its disk is in doubt is not asked again.
fn after_worker_error(
    error: &WorkerError,
    session: &Session,
    ctx: &Context<'_>,
    admitted: &mut Admitted,
    answer_limit: Duration,
) -> Attempt {
    // pingora keeps the first 64 KiB of a body.
    let is_body_kept = !session.retry_buffer_truncated();
    let unanswered = match (admitted.may_be_applied(), is_body_kept) {
        (false, _) => None,
        (true, true) => Some(UpstreamError::Failed),
        (true, false) => Some(UpstreamError::FailedWithLongBody),
    };
    let refusal = match error {
        // The slot's owner is being restarted. The request was not sent.
        WorkerError::NotListening(_) if admitted.attempts.may_wait() => {
            return Attempt::Retry(Retry::WorkerAbsent);
        }
        WorkerError::Died(_) if is_body_kept && admitted.attempts.may_repeat() => {
            return Attempt::Retry(Retry::WorkerDied);
        }
        WorkerError::KeyRefused => match key_refusal(ctx, is_body_kept, unanswered, admitted, answer_limit) {
            Some(refusal) => refusal,
            None => return Attempt::Retry(Retry::KeyNotPropagated),
        },
        WorkerError::TimedOut(_) => UpstreamError::Timeout.into(),
        WorkerError::Invalid(_) if unanswered.is_some() => UpstreamError::InvalidAnswer.into(),
        _ => unanswered.unwrap_or(UpstreamError::Unavailable).into(),
    };
    if let Refusal::Upstream(cause) = &refusal {
        let (tenant, request_id) = (admitted.tenant.name(), ctx.request_id_text());
        tracing::warn!(tenant, %cause, %error, request_id, "no answer from the worker");
    }
    Attempt::Refused(refusal)
}

/// What the client is told when the gateway accepted its key and the worker refused it: the key expired in between, or it was
/// revoked and the gateway has not read that yet. `None` if it is new and the worker has not read it yet: then the worker is
/// asked again for a while, and while there is time for an answer.
fn key_refusal(
    ctx: &Context<'_>,
    is_body_kept: bool,
    unanswered: Option<UpstreamError>,
    admitted: &mut Admitted,
    answer_limit: Duration,
) -> Option<Refusal> {
    let has_expired = admitted.tenant.has_expired();
    let is_known = ctx.live.directory.load().find(&admitted.tenant.token().digest()).is_some();
    let has_time = !ctx.worker_wait.left(answer_limit, Instant::now()).is_zero();
    if !has_expired && is_known && is_body_kept && has_time && admitted.attempts.may_wait() {
        return None;
    }
    Some(match unanswered.filter(|_| admitted.attempts.is_repeat()) {
        // An earlier worker may have applied it.
        Some(cause) => cause.into(),
        None if has_expired => AuthenticateError::Expired.into(),
        None if !is_known => AuthenticateError::Unknown.into(),
        None => UpstreamError::Unavailable.into(),
    })
}
