//! Serves one request after its head was read: checks it, forwards it to its tenant's worker, and answers. The
//! modules stand in the order in which a request meets them. The sessions with client and worker are pingora's; decision
//! 0013 says why there is no `ProxyHttp` between them.

mod context;

mod connection;

// The checks that need no body.
mod admit;
mod client_ip;
mod authenticate;
pub mod utf8;
pub mod target;
mod route;
mod repeat;

// One attempt after another.
mod attempt;
pub(crate) mod upstream_pool;
mod worker_socket;
mod forward;
mod exchange;
mod body;
mod transfer_timeout;
mod failure;
mod worker_wait;
mod worker_answer;

// The gateway's own answers.
mod answer;
pub(crate) mod health;
pub(crate) mod refuse;

// After the answer.
mod summary;
pub(crate) mod access;

use std::sync::Arc;

use bytes::BytesMut;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::server::HttpSession as Session;
use tokio::sync::watch;

use crate::audit::AuditLog;
use crate::directory::SharedDirectory;
use crate::listen::Peer;
use crate::metrics::Metrics;
use crate::phase::Phase;
use crate::stream::client;
use crate::traces::{RequestSpan, Traces};
use admit::{Admission, Admitted, admit};
use attempt::Attempt;
use authenticate::AuthenticatedTenant;
use context::{Context, LiveState};
use upstream_pool::UpstreamPool;

/// The request path.
pub(crate) struct Gateway {
    live: LiveState,
    audit: AuditLog,
    metrics: Arc<Metrics>,
    traces: Arc<Traces>,
}

impl Gateway {
    pub(crate) fn new(
        directory: SharedDirectory,
        audit: AuditLog,
        metrics: Arc<Metrics>,
        traces: Arc<Traces>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self { live: LiveState { directory, phase }, audit, metrics, traces }
    }

    /// Serves the request with this head. Returns the connection if another request may follow on it.
    pub(crate) async fn serve(
        &self,
        stream: Stream,
        head: BytesMut,
        peer: Peer,
        pool: &UpstreamPool,
    ) -> Option<Stream> {
        let before = client::bytes_read(&stream).saturating_sub(head.len() as u64);
        let mut session = Session::new(stream);
        session.set_pipelined_prefix(head);
        if !matches!(session.read_request().await, Ok(Some(_))) {
            connection::write_bad_request(&mut session).await;
            return None;
        }
        let head_end = before + session.get_headers_raw_bytes().len() as u64;
        let mut ctx = Context::new(&self.live, peer, head_end);
        connection::set_up(&mut session, &ctx);
        ctx.trace = self.traces.join(&session.req_header().headers);
        let is_root_lost = self.metrics.is_data_root_missing();
        let mut admission = admit(&self.audit, is_root_lost, session.req_header(), &mut ctx);
        let is_answered = self.handle(&mut session, &mut ctx, &mut admission, pool).await;
        self.record(&session, &ctx, admission.tenant());
        if !is_answered {
            return None;
        }
        // Only the first of pipelined requests is answered before the connection is closed: every head must pass the edge.
        session.set_pipelining_enabled(false);
        let kept = session.reuse().await.ok()??;
        Some(kept.into_parts().0)
    }

    /// Answers the request. Returns whether the client got the answer, so that the connection may be used again.
    async fn handle(
        &self,
        session: &mut Session,
        ctx: &mut Context<'_>,
        admission: &mut Admission,
        pool: &UpstreamPool,
    ) -> bool {
        if !matches!(admission, Admission::Forward(_)) {
            connection::before_answer(session, ctx);
        }
        match admission {
            Admission::Forward(admitted) => self.forward(session, ctx, admitted, pool).await,
            Admission::Health(question) => {
                health::answer(session, ctx, *question, &self.metrics).await.is_ok()
            }
            Admission::Preflight => answer::write_preflight(session, ctx).await.is_ok(),
            Admission::Refused(refused) => {
                refuse::answer(session, ctx, refused.line.as_mut(), &refused.refusal).await;
                true
            }
        }
    }

    /// Sends the request to its worker until one of them gives up. Returns whether the client got the worker's answer.
    async fn forward(
        &self,
        session: &mut Session,
        ctx: &mut Context<'_>,
        admitted: &mut Admitted,
        pool: &UpstreamPool,
    ) -> bool {
        if connection::expects_continue(session.req_header())
            && connection::write_continue(session).await.is_err()
        {
            return false;
        }
        if body::expects_body(session.req_header()) {
            session.enable_retry_buffering();
        }
        let refusal = loop {
            admitted.restart_body();
            match attempt::attempt(session, ctx, admitted, pool).await {
                Attempt::Retry(reason) => admitted.attempts.pause(reason).await,
                Attempt::Refused(refusal) => break Some(refusal),
                Attempt::ClientGone => break None,
                Attempt::CutOff => {
                    connection::reset_if_cut_off(session);
                    return false;
                }
                Attempt::Answered => {
                    // The worker may have answered before the body's end.
                    connection::linger(session, ctx).await;
                    return true;
                }
            }
        };
        ctx.worker_wait.give_up();
        if let Some(refusal) = refusal {
            session.set_server_keepalive(None);
            refuse::answer(session, ctx, Some(admitted.audited.line()), &refusal).await;
        }
        false
    }

    /// Counts and logs a request that has ended, and exports its span.
    fn record(&self, session: &Session, ctx: &Context<'_>, tenant: Option<&AuthenticatedTenant>) {
        let summary = summary::summarise(session, ctx, tenant);
        summary::count(&self.metrics, tenant, &summary);
        access::log(session, ctx, tenant, &summary);
        self.traces.record(&RequestSpan {
            trace: ctx.trace,
            started: ctx.started,
            method: target::logged_method(&session.req_header().method),
            request_id: &ctx.request_id,
            summary: &summary,
        });
    }
}
