//! The phases of a request, in pingora's order; each calls the step that does the work.

pub mod access;
pub mod account;
pub mod admit;
pub mod answer;
pub mod authenticate;
pub mod body;
pub mod client_ip;
pub mod context;
pub mod cors;
pub mod forward;
pub mod health;
pub mod limit;
pub mod refuse;
pub mod repeat;
pub mod route;
pub mod target;
pub mod utf8;
pub mod worker_wait;

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use sq_shared::headers::lookup::X_SQ_CODE;
use sq_shared::limits::{BODY_WINDOW, LINGER_TIME};
use sq_shared::problem::Code;
use tokio::sync::watch;

use crate::audit::AuditLog;
use crate::audit::ending::Ending;
use crate::directory::SharedDirectory;
use crate::metrics::{Metrics, NO_TENANT};
use crate::phase::Phase;
use crate::traces::Traces;
use admit::{Admission, admit};
use authenticate::AuthenticateError;
use body::BodyMeter;
use context::{Admitted, Connection, Context};
use refuse::{Refusal, UpstreamError};

/// A worker refused a key that it has not been told of yet: it is asked again.
const KEY_IS_NEWS: ErrorType = ErrorType::HTTPStatus(401);

/// The request path, as pingora calls it.
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

    /// When the gateway ends, each answer says that it is the last one of its connection.
    fn close_at_the_end(&self, session: &mut Session) {
        if self.phase.borrow().is_ending() {
            session.set_keepalive(None);
        }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// Boxed, for pingora moves it from phase to phase.
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        Box::new(Context::new(self.directory.load_full()))
    }

    /// None: pingora's own would compress answers, and is asked about each head and piece though it is off.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// The edge hands the connection over this way, with the first request as with the others.
    fn on_connection_reuse(
        &self,
        _: &mut Session,
        ctx: &mut Box<Context>,
        connection: Box<dyn Any + Send + Sync>,
    ) {
        if let Ok(connection) = connection.downcast::<Connection>() {
            ctx.peer = Some(connection.peer);
        }
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Context>) -> Result<bool> {
        // Nothing here changes protocols, so an upgrade that is asked for is ignored (RFC 9110, 7.8).
        session.req_header_mut().remove_header(&http::header::UPGRADE);
        // A second request that comes before the first one's answer must not cut that answer off; see `logging`.
        session.set_pipelining_enabled(true);
        session.set_read_timeout(Some(BODY_WINDOW));
        session.set_total_drain_timeout(Some(LINGER_TIME));
        // pingora takes chunks whose lines another server might end elsewhere (a LF in an extension, an empty size).
        // So nothing that comes behind them is believed to be a request.
        if session.req_header().headers.contains_key(http::header::TRANSFER_ENCODING) {
            session.set_keepalive(None);
        }
        self.close_at_the_end(session);
        ctx.trace = self.traces.join(&session.req_header().headers);
        let phase = *self.phase.borrow();
        match admit(&self.audit, phase, session.req_header(), ctx) {
            Ok(Admission::Forward) => {
                if forward::expects_continue(session.req_header()) {
                    write_continue(session).await?;
                }
                Ok(false)
            }
            Ok(Admission::Health(question)) => {
                health::answer(session, ctx, question).await?;
                Ok(true)
            }
            Ok(Admission::Preflight) => {
                answer_preflight(session, ctx).await?;
                Ok(true)
            }
            Err(refusal) => {
                refuse::answer(session, ctx, &refusal).await;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<Context>) -> Result<Box<HttpPeer>> {
        let directory = ctx.directory.clone();
        let has_body = BodyMeter::expects_body(session.req_header());
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
        Ok(Box::new(route::upstream(&admitted.tenant, &directory, has_body, admitted.is_repeat())))
    }

    /// Nobody listens on the slot, or its owner went while the connection waited: it is being started again, and takes the
    /// slot in a moment. Nothing was sent, so this is no attempt of the request.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Box<Context>,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let Some(admitted) = ctx.admitted() else { return error };
        if matches!(error.etype(), ErrorType::ConnectRefused | ErrorType::ConnectError) {
            error.set_retry(admitted.waits_longer());
        }
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        let (request_id, trace) = (ctx.request_id.clone(), ctx.trace);
        let admitted = ctx.admitted().ok_or_else(not_admitted)?;
        let nothing = RequestHeader::from(http::Request::new(()).into_parts().0);
        let copy = std::mem::replace(upstream_request, nothing);
        *upstream_request = forward::request_head(copy, session.req_header(), admitted, &request_id, trace)?;
        admitted.is_sent = true;
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        let Some(admitted) = ctx.admitted() else { return Err(not_admitted()) };
        if let Err(error) = admitted.body.push(body.as_ref(), end_of_stream) {
            ctx.refusal = Some(error.into());
            return Err(Error::new_down(ErrorType::InvalidHTTPHeader));
        }
        let is_last = end_of_stream || admitted.body.is_whole();
        admitted.audited.push_body(body.as_deref().unwrap_or_default(), is_last);
        if is_last {
            ctx.worker_wait.begin();
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        // Perhaps it is asked again, and waited for on.
        if upstream_response.status == StatusCode::UNAUTHORIZED {
            return Err(self.refused_by_worker(session, ctx));
        }
        if !upstream_response.status.is_informational() {
            ctx.worker_wait.answered();
        }
        let code = upstream_response.headers.get(X_SQ_CODE).and_then(|value| value.to_str().ok());
        ctx.code = code.and_then(Code::of_text);
        if !upstream_response.status.is_informational() {
            let has_key = ctx.keys().is_some_and(|keys| keys.of_client.is_some());
            ctx.admitted().ok_or_else(not_admitted)?.has_answer = true;
            ctx.end_audit_line(&Ending::answered(upstream_response, has_key)).await;
        }
        self.close_at_the_end(session);
        *upstream_response = forward::answer_head(upstream_response, session.req_header(), ctx)?;
        Ok(())
    }

    /// A request is sent again when its worker died before a byte of an answer came. A write may have been
    /// applied then; by its keys the next worker knows it, and gives the answer without applying it twice. An
    /// answer is an answer, though: a worker that says 503 because its disk is in doubt is not asked again.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Box<Context>,
        _client_reused: bool,
    ) -> Box<Error> {
        let began = session.response_written().is_some_and(|head| !head.status.is_informational());
        let attempts_left = ctx
            .admitted()
            .is_some_and(|admitted| !admitted.has_answer && admitted.attempts < repeat::MOST_ATTEMPTS);
        let may_repeat = attempts_left && is_whole_body_kept(session) && !began && ctx.refusal.is_none();
        error.set_retry(may_repeat && (repeat::is_death(&error) || *error.etype() == KEY_IS_NEWS));
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Box<Context>,
    ) -> FailToProxy {
        ctx.worker_wait.given_up();
        let unanswered = unanswered(session, ctx);
        let refusal = ctx.refusal.take().or_else(|| refuse::of_proxy_error(error, unanswered));
        if let Some(Refusal::Upstream(cause)) = &refusal {
            let tenant = ctx.tenant().map_or(NO_TENANT, |tenant| tenant.tenant().name.as_str());
            tracing::warn!(tenant, %cause, %error, request_id = ctx.request_id_text(), "no answer from the worker");
        }
        session.set_keepalive(None);
        let error_code = match refusal {
            Some(refusal) => refuse::answer(session, ctx, &refusal).await,
            None => 0,
        };
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut Box<Context>) {
        let ended = account::of(session, ctx);
        account::count(&self.metrics, ctx, &ended);
        access::log(session, ctx, &ended);
        self.traces.ended(session.req_header(), ctx, &ended);
        // Of pipelined requests the first is answered, and then the connection is closed: the next head has to
        // come through the edge, which pingora's own pipelining would go around.
        session.set_pipelining_enabled(false);
    }

    /// pingora's own lines would have the query in them; ours is the access line.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Box<Context>, _error: &Error) -> bool {
        true
    }

    /// Nor do we want a line of pingora's each time that a request is sent again.
    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Box<Context>,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    fn request_summary(&self, _session: &Session, ctx: &Box<Context>) -> String {
        ctx.request_id_text().to_owned()
    }
}

/// Lets the client send its body. pingora would take this for an answer before the body's end, and close
/// the connection after the request.
async fn write_continue(session: &mut Session) -> Result<()> {
    session.set_close_on_response_before_downstream_finish(false);
    session.write_continue_response().await?;
    session.set_close_on_response_before_downstream_finish(true);
    Ok(())
}

/// Whether pingora still has all of the body that it has read: its buffer takes 64 KiB, no more and no less.
fn is_whole_body_kept(session: &Session) -> bool {
    !session.as_ref().retry_buffer_truncated()
}

/// What to say of a write to which no worker gave an answer; `None` when none can have applied it.
fn unanswered(session: &Session, ctx: &mut Context) -> Option<UpstreamError> {
    ctx.admitted().filter(|admitted| admitted.may_be_applied())?;
    Some(if is_whole_body_kept(session) { UpstreamError::Failed } else { UpstreamError::FailedWithLongBody })
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
    session.write_response_header(Box::new(head), true).await
}
