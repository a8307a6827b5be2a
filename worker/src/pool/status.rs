//! The pool's status port: `/health` for health checks, `/status` for operators and the gateway's admin API, and
//! `/metrics` for Prometheus.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use sq_shared::headers::{PROBLEM_JSON, X_REQUEST_ID};
use sq_shared::host;
use sq_shared::listen_error::{self, Settings};
use sq_shared::loopback::names_loopback;
use sq_shared::operator_port;
use sq_shared::problem::{Code, Problem};
use sq_shared::request_id::new_request_id;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::event::Event;
use super::metrics::Metrics;
use super::report::Report;
use super::slot;
use super::storage::{Sizes, Storage};

/// How long a connection may take, with request and answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the answers come from.
#[derive(Debug)]
pub(crate) struct StatusSources {
    /// The pool's loop, which makes a [`Report`].
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) storage: Arc<Storage>,
    /// Whether the address is loopback. Requests must then name a loopback host.
    pub(crate) is_local: bool,
}

/// The status port's socket, and the task that accepts on it.
pub(crate) struct StatusServer {
    /// For the next pool.
    pub(crate) listener: OwnedFd,
    accepting: AbortHandle,
}

/// The status port's socket, before it is served.
pub(crate) struct StatusSocket {
    pub(crate) address: SocketAddr,
    listener: OwnedFd,
    listening: TcpListener,
}

impl StatusSocket {
    /// Listens on an inherited socket, or on a new one.
    pub(crate) fn listen(address: SocketAddr, inherited: Option<OwnedFd>) -> Result<Self, String> {
        let explain = |error: io::Error| {
            let settings = Settings::one("[pool] status_listen, or set it to \"off\"");
            let advice = listen_error::tcp_advice(address, &error, settings);
            format!("failed to listen on {address} for the pool's status: {error}; {advice}")
        };
        if !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "other machines can read the pool's status and metrics without a key; restrict access with a firewall"
            );
        }
        let listener = match inherited {
            Some(inherited) => Ok(inherited),
            None => slot::listen(address),
        };
        let listener = listener.map_err(explain)?;
        let copy = std::net::TcpListener::from(listener.try_clone().map_err(explain)?);
        let listening = TcpListener::from_std(copy).map_err(explain)?;
        Ok(Self { address, listener, listening })
    }

    /// Accepts and answers from now on.
    pub(crate) fn serve(self, sources: StatusSources) -> StatusServer {
        let accepting = tokio::spawn(accept(self.listening, Arc::new(sources)));
        StatusServer { listener: self.listener, accepting: accepting.abort_handle() }
    }
}

impl StatusServer {
    /// Stops accepting, so that the next pool answers.
    pub(crate) fn stop(&self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, sources: Arc<StatusSources>) {
    let answer = move |_, request| answer(request, Arc::clone(&sources));
    operator_port::serve(listener, CONNECTION_TIMEOUT, answer, std::future::pending()).await;
}

async fn answer(
    request: Request<Incoming>,
    sources: Arc<StatusSources>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Err(error) = host::check(request.version(), request.uri(), request.headers()) {
        return Ok(refused(&error.problem()));
    }
    if sources.is_local && !names_loopback(request.headers()) {
        return Ok(refusal(
            Code::Misdirected,
            "ask for a loopback address or localhost: this is answered to no other Host",
        ));
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let answer = match request.uri().path() {
        "/health" if is_read => json(&serde_json::json!({"status": "ok"})),
        "/status" if is_read => {
            sources.read().await.map_or_else(stopping, |(report, sizes)| json(&report.with_storage(&sizes)))
        }
        "/metrics" if is_read => {
            sources.read().await.map_or_else(stopping, |(report, sizes)| sources.metrics(&report, &sizes))
        }
        _ => refusal(Code::UnknownRoute, "ask GET /health, GET /status or GET /metrics"),
    };
    Ok(answer)
}

impl StatusSources {
    /// A report, and what is stored; `None` if the loop has ended.
    async fn read(&self) -> Option<(Report, Arc<Sizes>)> {
        let (sender, report) = oneshot::channel();
        // If the loop has ended, the sender is dropped and `report` fails.
        let _ = self.events.send(Event::StatusRequested(sender));
        let report = report.await.ok()?;
        let sizes = self.storage.sizes(&report.accounts).await;
        Some((report, sizes))
    }

    fn metrics(&self, report: &Report, sizes: &Sizes) -> Response<Full<Bytes>> {
        match self.metrics.text(report, sizes, self.storage.missing_directories()) {
            Ok(text) => respond(StatusCode::OK, prometheus::TEXT_FORMAT, text.into_bytes()),
            Err(error) => {
                tracing::error!(%error, "failed to write the metrics");
                refusal(Code::Internal, "see the pool's log")
            }
        }
    }
}

fn stopping() -> Response<Full<Bytes>> {
    refusal(Code::ShuttingDown, "the pool is shutting down; ask the next one")
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => respond(StatusCode::OK, "application/json", body),
        Err(error) => {
            tracing::error!(%error, "failed to write the status");
            refusal(Code::Internal, "see the pool's log")
        }
    }
}

fn refusal(code: Code, detail: &'static str) -> Response<Full<Bytes>> {
    refused(&Problem::new(code, detail))
}

fn refused(problem: &Problem) -> Response<Full<Bytes>> {
    let id = new_request_id();
    let body = problem.to_json(id.to_str().unwrap_or_default());
    let status = StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(status, PROBLEM_JSON, body);
    response.headers_mut().insert(X_REQUEST_ID, id);
    response
}

fn respond(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
