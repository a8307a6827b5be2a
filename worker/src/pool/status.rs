//! The pool's status page: `/health` for health checks, `/status` for people and for the gateway's
//! admin API.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use sq_shared::headers::{PROBLEM_JSON, X_REQUEST_ID};
use sq_shared::problem::{Code, Problem};
use sq_shared::request_id::new_request_id;
use sq_shared::tenant::TenantName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Event;
use super::desired::Desired;
use super::observed::{Observed, Slot, Worker};

/// More than a health check, a scraper and an operator need at once.
const CONNECTIONS: usize = 32;

/// How long a connection may take, question and answer together.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What `/status` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    status: &'static str,
    slots: usize,
    tenants: usize,
    workers: Counts,
    running: Vec<Running>,
}

/// Active tenants by the state of their workers, and the workers that are on their way out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Counts {
    sleeping: usize,
    running: usize,
    backing_off: usize,
    stopping: usize,
}

/// A worker that is not stopping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Running {
    tenant: TenantName,
    port: u16,
    pid: u32,
    starts: u64,
    crashes: u64,
    uptime_ms: u64,
}

impl Report {
    /// How things stand now; `tenants` counts the inactive ones too.
    pub fn new(desired: &Desired, observed: &Observed, tenants: usize, now: Instant) -> Self {
        let mut workers = Counts::default();
        let mut running = Vec::new();
        for (port, slot) in &observed.slots {
            match (&slot.worker, desired.assignments.get(port)) {
                (Some(worker), _) if worker.stop.is_some() => workers.stopping += 1,
                (Some(worker), _) => running.push(Running::new(*port, slot, worker, now)),
                (None, Some(assignment)) if slot.holds_until(assignment, now).is_some() => {
                    workers.backing_off += 1
                }
                (None, Some(_)) => workers.sleeping += 1,
                (None, None) => {}
            }
        }
        workers.running = running.len();
        Self { status: "ok", slots: observed.slots.len(), tenants, workers, running }
    }
}

impl Running {
    fn new(port: u16, slot: &Slot, worker: &Worker, now: Instant) -> Self {
        let uptime = now.saturating_duration_since(worker.since);
        let history = slot.history.as_ref();
        Self {
            tenant: worker.assignment.tenant.clone(),
            port,
            pid: worker.pid,
            starts: history.map_or(0, |history| history.starts),
            crashes: history.map_or(0, |history| history.crashes),
            uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Listens for questions.
///
/// # Errors
/// The address cannot be had; the text names it and says what to do.
pub async fn start(address: SocketAddr, events: mpsc::UnboundedSender<Event>) -> Result<(), String> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        format!("cannot listen on {address} for the pool's status: {error}; change [pool] status_listen, or set it to \"off\"")
    })?;
    tokio::spawn(accept(listener, events));
    Ok(())
}

async fn accept(listener: TcpListener, events: mpsc::UnboundedSender<Event>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let events = events.clone();
                tokio::spawn(async move {
                    // Too slow is too slow: the connection is dropped.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serve(stream, events)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the status page");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, events: mpsc::UnboundedSender<Event>) {
    let service = service_fn(|request| answer(request, events.clone()));
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).keep_alive(false);
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the status page broke off");
    }
}

async fn answer(
    request: Request<Incoming>,
    events: mpsc::UnboundedSender<Event>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    Ok(match request.uri().path() {
        "/health" if is_read => json(&serde_json::json!({"status": "ok"})),
        "/status" if is_read => {
            let (sender, report) = oneshot::channel();
            let _ = events.send(Event::StatusAsked(sender));
            match report.await {
                Ok(report) => json(&report),
                Err(_) => refusal(Code::ShuttingDown, "the pool is shutting down; ask the next one"),
            }
        }
        _ => refusal(Code::UnknownRoute, "ask GET /health or GET /status"),
    })
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => respond(StatusCode::OK, "application/json", body),
        Err(error) => {
            tracing::error!(%error, "cannot write the status");
            refusal(Code::Internal, "see the pool's log")
        }
    }
}

fn refusal(code: Code, detail: &'static str) -> Response<Full<Bytes>> {
    let id = new_request_id();
    let body = Problem::new(code, detail).to_json(id.to_str().unwrap_or_default());
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(status, PROBLEM_JSON, body);
    response.headers_mut().insert(X_REQUEST_ID, id);
    response
}

fn respond(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
