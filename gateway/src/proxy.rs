//! The phases of a request, in their order; each calls the step that does the work. The sessions with client and worker
//! are pingora's; that there is no `ProxyHttp` between them, docs/decisions/0013-own-forwarding.md says why.

pub mod access;
pub mod account;
pub mod admit;
pub mod answer;
pub mod authenticate;
pub mod body;
pub mod client_ip;
pub mod context;
pub mod cors;
mod exchange;
pub mod forward;
pub mod health;
pub mod limit;
mod patience;
pub mod refuse;
pub mod repeat;
pub mod route;
pub mod target;
pub mod upstream_pool;
pub mod utf8;
pub mod worker_answer;
mod worker_socket;
pub mod worker_wait;

use std::pin::pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession as UpstreamSession;
use pingora::protocols::http::v1::server::HttpSession as Session;
use pingora::{Error, ErrorSource, ErrorType, Result};
use sq_shared::headers::lookup::X_SQ_CODE;
use sq_shared::limits::{BODY_WINDOW, LINGER_TIME};
use sq_shared::problem::Code;
use tokio::sync::watch;

use crate::audit::AuditLog;
use crate::audit::ending::Ending;
use crate::directory::SharedDirectory;
use crate::edge;
use crate::metrics::{Metrics, NO_TENANT};
use crate::phase::Phase;
use crate::traces::Traces;
use admit::{Admission, admit};
use authenticate::AuthenticateError;
use body::BodyMeter;
use client_ip::Peer;
use context::{Admitted, Context};
use exchange::Exchange;
use refuse::{Refusal, UpstreamError};
use upstream_pool::UpstreamPool;

/// A worker refused a key that it has not been told of yet: it is asked again.
const KEY_IS_NEWS: ErrorType = ErrorType::HTTPStatus(401);

/// The request path.
pub struct Gateway {
    directory: SharedDirectory,
    audit: AuditLog,
    metrics: Arc<Metrics>,
    traces: Arc<Traces>,
    phase: watch::Receiver<Phase>,
}

impl Gateway {
    /// A gateway that looks things up in this directory, notes writes in this log, counts here, traces there, and is in
    /// this phase.
    pub fn new(
        directory: SharedDirectory,
        audit: AuditLog,
        metrics: Arc<Metrics>,
        traces: Arc<Traces>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self { directory, audit, metrics, traces, phase }
    }

    /// Serves the request whose head has come. Gives the connection back if another request may follow on it.
    pub async fn serve(
        &self,
        stream: Stream,
        head: BytesMut,
        peer: Peer,
        pool: &UpstreamPool,
    ) -> Option<Stream> {
        let before = edge::departure::read_bytes(&stream).saturating_sub(head.len() as u64);
        let mut session = Session::new(stream);
        session.set_pipelined_prefix(head);
        if !matches!(session.read_request().await, Ok(Some(_))) {
            write_bad_request(&mut session).await;
            return None;
        }
        let mut ctx = Context::new(self.directory.load_full(), peer);
        ctx.head_end = before + session.get_headers_raw_bytes().len() as u64;
        let outcome = self.handle(&mut session, &mut ctx, pool).await;
        if let Err(error) = &outcome {
            self.answer_failure(&mut session, &mut ctx, error).await;
        }
        self.note(&session, &ctx);
        outcome.ok()?;
        // Of pipelined requests the first is answered, and then the connection is closed: the next head has to come
        // through the edge.
        session.set_pipelining_enabled(false);
        let kept = session.reuse().await.ok()??;
        Some(kept.into_parts().0)
    }

    /// Checks the request, and has it answered.
    async fn handle(&self, session: &mut Session, ctx: &mut Context, pool: &UpstreamPool) -> Result<()> {
        self.set_up(session, ctx);
        ctx.trace = self.traces.join(&session.req_header().headers);
        let phase = *self.phase.borrow();
        let is_root_lost = self.metrics.is_data_root_missing();
        let admission = admit(&self.audit, (phase, is_root_lost), session.req_header(), ctx);
        if !matches!(admission, Ok(Admission::Forward)) {
            hear_of_end(session);
            self.close_at_the_end(session, ctx);
        }
        match admission {
            Ok(Admission::Forward) => {
                self.forward(session, ctx, pool).await?;
                // The worker may have answered before the body's end.
                refuse::linger(session, ctx).await;
                Ok(())
            }
            Ok(Admission::Health(question)) => {
                health::answer(session, ctx, question, &self.metrics).await.map_err(Error::into_down)
            }
            Ok(Admission::Preflight) => answer_preflight(session, ctx).await.map_err(Error::into_down),
            Err(refusal) => {
                refuse::answer(session, ctx, &refusal).await;
                Ok(())
            }
        }
    }

    fn set_up(&self, session: &mut Session, ctx: &Context) {
        // Nothing here changes protocols, so an upgrade that is asked for is ignored (RFC 9110, 7.8).
        session.req_header_mut().remove_header(&http::header::UPGRADE);
        // A second request that comes before the first one's answer must not cut that answer off; see `serve`.
        session.set_pipelining_enabled(true);
        session.set_read_timeout(Some(BODY_WINDOW));
        session.set_total_drain_timeout(Some(LINGER_TIME));
        // pingora takes chunks whose lines another server might end elsewhere (a LF in an extension, an empty size).
        // So nothing that comes behind them is believed to be a request.
        if session.req_header().headers.contains_key(http::header::TRANSFER_ENCODING) {
            session.set_server_keepalive(None);
        }
        self.close_at_the_end(session, ctx);
    }

    /// Sends the request to its worker, again if that one died under it, until there is an answer.
    async fn forward(&self, session: &mut Session, ctx: &mut Context, pool: &UpstreamPool) -> Result<()> {
        if forward::expects_continue(session.req_header()) {
            write_continue(session).await.map_err(Error::into_down)?;
        }
        if BodyMeter::expects_body(session.req_header()) {
            session.enable_retry_buffering();
        }
        loop {
            let admitted = ctx.admitted().ok_or_else(not_admitted)?;
            let pause = match admitted.absence {
                Some(since) => repeat::pause_in_absence(since.elapsed()),
                None => repeat::pause_after(admitted.attempts),
            };
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            admitted.attempts += 1;
            admitted.body.restart();
            admitted.audited.restart_body();
            match self.attempt(session, ctx, pool).await {
                Err(error) if error.retry() => {}
                ended => return ended,
            }
        }
    }

    /// Sends the request to its worker once, and its answer to the client. The error says whether to try again.
    async fn attempt(&self, session: &mut Session, ctx: &mut Context, pool: &UpstreamPool) -> Result<()> {
        let (directory, worker_wait) = (ctx.directory.clone(), ctx.worker_wait);
        let admitted = ctx.admitted().ok_or_else(not_admitted)?;
        let upstream = route::upstream(&admitted.tenant, &directory);
        // A repeat gets a new connection: the kept ones may have died with the same worker, and each would cost an attempt.
        let kept = if admitted.is_repeat() { None } else { pool.take(&upstream) };
        let stream = match kept {
            Some(stream) => stream,
            None => {
                let left = worker_wait.left(upstream.answer, Instant::now());
                upstream_pool::connect(&upstream, left)
                    .await
                    .map_err(|error| not_connected(error, admitted))?
            }
        };
        let mut connection = UpstreamSession::new(stream);
        let is_whole_sent = match self.exchange(session, &mut connection, ctx, upstream.answer).await {
            Ok(is_whole_sent) => is_whole_sent,
            Err(error) => {
                if *error.esource() == ErrorSource::Upstream {
                    worker_socket::forget_unsent(connection.stream());
                }
                return Err(or_repeat(error, session, ctx));
            }
        };
        connection.respect_keepalive();
        if is_whole_sent && let Some(stream) = connection.reuse().await {
            pool.keep(&upstream, stream);
        }
        Ok(())
    }

    /// One attempt, on this connection. Says whether the worker got the whole request.
    async fn exchange(
        &self,
        session: &mut Session,
        upstream: &mut UpstreamSession,
        ctx: &mut Context,
        answer_limit: Duration,
    ) -> Result<bool> {
        let (request_id, trace) = (ctx.request_id.clone(), ctx.trace);
        let admitted = ctx.admitted().ok_or_else(not_admitted)?;
        let head = forward::request_head(session.req_header(), admitted, &request_id, trace)?;
        admitted.is_sent = true;
        let mut exchange = Exchange::begin(session, upstream, ctx, head, answer_limit).await?;
        exchange.wait_for_head().await?;
        let head = self.answer_head(&mut exchange).await?;
        if forward::ends_with_connection(&head, exchange.session.req_header()) {
            exchange.session.set_server_keepalive(None);
        }
        exchange.session.write_response_header(Box::new(head)).await.map_err(Error::into_down)?;
        exchange.pass_answer().await?;
        Ok(exchange.is_whole_sent())
    }

    /// What the client gets for the head of the worker's answer.
    async fn answer_head(&self, exchange: &mut Exchange<'_>) -> Result<ResponseHeader> {
        let Exchange { session, upstream, ctx, .. } = exchange;
        let worker = upstream.resp_header().ok_or_else(no_head)?;
        worker_answer::check(worker).map_err(|error| exchange::invalid(error.to_string()))?;
        // Perhaps it is asked again, and waited for on.
        if worker.status == StatusCode::UNAUTHORIZED {
            return Err(self.refused_by_worker(session, ctx));
        }
        let code = worker.headers.get(X_SQ_CODE).and_then(|value| value.to_str().ok());
        let code = code.and_then(Code::of_text).filter(|code| code.status() == worker.status.as_u16());
        if code == Some(Code::DataRootMissing) {
            Self::refuse_doubtful(session, ctx)?;
        }
        ctx.worker_wait.answered();
        ctx.code = code;
        let has_key = ctx.keys().is_some_and(|keys| keys.of_client.is_some());
        ctx.admitted().ok_or_else(not_admitted)?.has_answer = true;
        ctx.end_audit_line(&Ending::answered(worker, has_key)).await;
        hear_of_end(session);
        self.close_at_the_end(session, ctx);
        forward::answer_head(worker, session.req_header(), ctx)
    }

    /// Answers a request that was not answered by anybody, if its client is still there.
    async fn answer_failure(&self, session: &mut Session, ctx: &mut Context, error: &Error) {
        ctx.worker_wait.given_up();
        let unanswered = unanswered(session, ctx);
        let refusal = ctx.refusal.take().or_else(|| refuse::of_proxy_error(error, unanswered));
        if let Some(Refusal::Upstream(cause)) = &refusal {
            let tenant = ctx.tenant().map_or(NO_TENANT, |tenant| tenant.tenant().name.as_str());
            let (error, request_id) = (refuse::logged(error), ctx.request_id_text());
            tracing::warn!(tenant, %cause, error, request_id, "no answer from the worker");
        }
        session.set_server_keepalive(None);
        match (refusal, session.response_written()) {
            // The client would take what it has for all of it.
            (_, Some(head)) if forward::ends_with_connection(head, session.req_header()) => {
                edge::reset_on_close(session.stream());
            }
            (Some(refusal), _) => refuse::answer(session, ctx, &refusal).await,
            (None, _) => {}
        }
    }

    /// Notes what the request has been.
    fn note(&self, session: &Session, ctx: &Context) {
        let ended = account::of(session, ctx);
        account::count(&self.metrics, ctx, &ended);
        access::log(session, ctx, &ended);
        self.traces.ended(session.req_header(), ctx, &ended);
    }

    /// A worker says that nothing was written, because there is no directory. One that was asked before may have written.
    fn refuse_doubtful(session: &Session, ctx: &mut Context) -> Result<()> {
        let is_repeat = ctx.admitted().is_some_and(|admitted| admitted.is_repeat());
        let Some(cause) = unanswered(session, ctx).filter(|_| is_repeat) else { return Ok(()) };
        ctx.refusal = Some(cause.into());
        Err(Error::new_up(ErrorType::HTTPStatus(503)))
    }

    /// The key was good here, and the worker refused it: it expired on its way, it is revoked and the gateway has not read
    /// that yet, or it is new and the worker has not been told. Then the worker is asked again for a while.
    fn refused_by_worker(&self, session: &Session, ctx: &mut Context) -> Box<Error> {
        let (has_expired, is_known) = ctx.tenant().map_or((false, false), |tenant| {
            (tenant.has_expired(), self.directory.load().find(&tenant.token().digest()).is_some())
        });
        let is_news = !has_expired && is_known && is_whole_body_kept(session);
        if is_news && ctx.admitted().is_some_and(Admitted::waits_longer) {
            return Error::new_up(KEY_IS_NEWS);
        }
        // A worker that was asked before may have applied it.
        let is_repeat = ctx.admitted().is_some_and(|admitted| admitted.is_repeat());
        let cause = unanswered(session, ctx).filter(|_| is_repeat);
        ctx.refusal = Some(match cause {
            Some(cause) => cause.into(),
            None if has_expired => AuthenticateError::Expired.into(),
            None if !is_known => AuthenticateError::Unknown.into(),
            None => UpstreamError::Unavailable.into(),
        });
        Error::new_up(ErrorType::HTTPStatus(503))
    }

    /// When the gateway ends, or another request has already been read with this one, the answer says that it is the last
    /// one of its connection.
    fn close_at_the_end(&self, session: &mut Session, ctx: &Context) {
        if self.phase.borrow().is_ending() || has_next_request(session, ctx) {
            session.set_server_keepalive(None);
        }
    }
}

/// Whether more has been read than the request. (Behind a body in chunks, nothing is taken for a request anyway.)
fn has_next_request(session: &Session, ctx: &Context) -> bool {
    let behind_head = edge::departure::read_bytes(session.stream()).saturating_sub(ctx.head_end);
    behind_head > 0 && behind_head > BodyMeter::declared_bytes(session.req_header()).unwrap_or(0)
}

/// Takes note of what has come behind a request by the time of its answer: that the client sends nothing more, or a request
/// that must not cut this one's answer off. What comes later is found when the next head is waited for.
fn hear_of_end(session: &mut Session) {
    if edge::departure::has_news(session.stream()) && session.is_body_done() {
        let mut heard = pin!(tokio::task::unconstrained(session.read_body_or_idle(true)));
        // A client that is gone is noticed as it is written to.
        let _ = heard.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
    }
}

/// Nobody listens on the slot, or its owner went while the connection waited: it is being started again, and takes the slot
/// in a moment. Nothing was sent, so this is no attempt of the request.
fn not_connected(mut error: Box<Error>, admitted: &mut Admitted) -> Box<Error> {
    if *error.etype() == ErrorType::ConnectError {
        error.set_retry(admitted.waits_longer());
    }
    error
}

/// A request is sent again when its worker died before a byte of an answer came. A write may have been applied then; by its
/// keys the next worker knows it, and gives the answer without applying it twice. An answer is an answer, though: a worker
/// that says 503 because its disk is in doubt is not asked again.
fn or_repeat(mut error: Box<Error>, session: &Session, ctx: &mut Context) -> Box<Error> {
    let began = session.response_written().is_some_and(|head| !head.status.is_informational());
    let attempts_left = ctx
        .admitted()
        .is_some_and(|admitted| !admitted.has_answer && admitted.attempts < repeat::MOST_ATTEMPTS);
    let may_repeat = attempts_left && is_whole_body_kept(session) && !began && ctx.refusal.is_none();
    error.set_retry(may_repeat && (repeat::is_death(&error) || *error.etype() == KEY_IS_NEWS));
    error
}

/// pingora takes this head for none, though the edge has read it.
async fn write_bad_request(session: &mut Session) {
    let Ok(mut head) = ResponseHeader::build(StatusCode::BAD_REQUEST, Some(3)) else { return };
    if head.insert_header(http::header::CONTENT_LENGTH, 0).is_ok() {
        // The client may be gone.
        let _ = session.write_response_header(Box::new(head)).await;
    }
    session.shutdown().await;
}

/// Lets the client send its body. pingora would take this for an answer before the body's end, and close the connection
/// after the request.
async fn write_continue(session: &mut Session) -> Result<()> {
    session.set_close_on_response_before_downstream_finish(false);
    session.write_continue_response().await?;
    session.set_close_on_response_before_downstream_finish(true);
    Ok(())
}

/// Whether pingora still has all of the body that it has read.
fn is_whole_body_kept(session: &Session) -> bool {
    !session.retry_buffer_truncated()
}

/// What to say of a write to which no worker gave an answer; `None` when none can have applied it.
fn unanswered(session: &Session, ctx: &mut Context) -> Option<UpstreamError> {
    ctx.admitted().filter(|admitted| admitted.may_be_applied())?;
    Some(if is_whole_body_kept(session) { UpstreamError::Failed } else { UpstreamError::FailedWithLongBody })
}

/// The head is waited for first.
fn no_head() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "the answer was passed on before it came")
}

/// Only a request that was admitted comes this far.
fn not_admitted() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "the request was forwarded before it was admitted")
}

async fn answer_preflight(session: &mut Session, ctx: &Context) -> Result<()> {
    let mut head = ResponseHeader::build(StatusCode::NO_CONTENT, Some(12))?;
    forward::add_common_fields(&mut head, &session.req_header().headers, ctx)?;
    for (name, value) in ctx.directory.cors.preflight_fields(&session.req_header().headers) {
        head.insert_header(name, value)?;
    }
    session.write_response_header(Box::new(head)).await
}
