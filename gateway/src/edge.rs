//! Accepts connections up to a limit, and reads one request head after another from each: every head against a deadline, and
//! checked before the proxy serves the request.

mod framing;
pub mod head;
pub mod head_error;

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use pingora::prelude::timeout;
use pingora::protocols::Stream;
use prometheus::IntGauge;
use sq_shared::clock;
use sq_shared::headers::{PROBLEM_JSON, X_REQUEST_ID};
use sq_shared::limits::{LINGER_BYTES, LINGER_TIME};
use sq_shared::problem::Problem;
use sq_shared::request_id::new_request_id;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Sleep;

use crate::directory::SharedDirectory;
use crate::limits::{LimitError, RateStatus, rate_limit_fields};
use crate::listen::{Listener, Peer};
use crate::metrics::{CommandLabel, Metrics, NO_TENANT, RequestSummary};
use crate::phase::Phase;
use crate::proxy::refuse::Refusal;
use crate::proxy::upstream_pool::UpstreamPool;
use crate::proxy::{Gateway, access};
use crate::stream::idle::idle_for;
use head::HeadLimits;
use head_error::HeadError;

/// The pause after an accept has failed, as it does when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The answer while the clock is too wrong to date answers.
const CLOCK_IS_WRONG: &str =
    "The server's clock is wrong: it stands before 1970, or after 9999. Tell your host.";

/// Counts as an open connection until it is dropped.
struct ConnectionPermit {
    _permit: OwnedSemaphorePermit,
    open: IntGauge,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// The accept side of one proxy thread. Clones share everything.
#[derive(Clone)]
pub(crate) struct Edge {
    pub gateway: Arc<Gateway>,
    /// The idle connections to workers that this thread keeps.
    pub upstreams: Arc<UpstreamPool>,
    /// For the limits of request heads.
    pub directory: SharedDirectory,
    /// Counts connections, and requests that are refused here.
    pub metrics: Arc<Metrics>,
    /// One permit per connection.
    pub connections: Arc<Semaphore>,
    pub phase: watch::Receiver<Phase>,
    /// Held while this accept loop or one of its connections runs. The server waits until every sender is dropped.
    pub _presence: mpsc::Sender<Infallible>,
}

impl Edge {
    /// Accepts until the gateway stops taking connections, and then accepts the queued ones, which the kernel has already
    /// established, unless another process accepts from the same queue. Above the limit, connections wait in the queue.
    pub(crate) async fn accept(self, listener: Listener) {
        let mut phase = self.phase.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept_one(&listener) => accepted,
                _ = phase.wait_for(|phase| phase.is_closing()) => break,
            };
            match accepted {
                Ok((permit, stream, peer)) => _ = tokio::spawn(self.clone().serve(stream, peer, permit)),
                // The client left the queue.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::error!(%error, "failed to accept a connection; if the open-file limit is too low, raise it");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        if phase.borrow().leaves_queue() {
            return;
        }
        if let Err(error) = self.accept_queue(listener).await {
            tracing::error!(%error, "failed to accept queued connections; they will be reset");
        }
    }

    async fn accept_one(&self, listener: &Listener) -> io::Result<(ConnectionPermit, Stream, Peer)> {
        let permit = self.acquire().await?;
        let (stream, peer) = listener.accept().await?;
        Ok((self.count_open(permit), stream, peer))
    }

    async fn acquire(&self) -> io::Result<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).acquire_owned().await.map_err(io::Error::other)
    }

    fn count_open(&self, permit: OwnedSemaphorePermit) -> ConnectionPermit {
        let open = self.metrics.connections.clone();
        open.inc();
        ConnectionPermit { _permit: permit, open }
    }

    async fn accept_queue(self, listener: Listener) -> io::Result<()> {
        for accepted in listener.into_queue()? {
            match accepted {
                Ok((stream, peer)) => {
                    let permit = self.count_open(self.acquire().await?);
                    tokio::spawn(self.clone().serve(stream, peer, permit));
                }
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn serve(self, mut stream: Stream, peer: Peer, _permit: ConnectionPermit) {
        // The deadline of the first head counts from the connection's start, that of each further head from its first byte.
        let mut since = Some(Instant::now());
        let limit = self.head_limits().time;
        // Both are created once per connection: creating them for each request would cost more than the wait. Once the
        // shutdown deadline has passed, `first_bytes` returns `None`, and it is not polled again.
        let mut shutdown_deadline = pin!(self.shutdown_deadline());
        let mut idle_timer = pin!(tokio::time::sleep(limit));
        let started = timeout(limit, head::first_bytes(&mut stream, shutdown_deadline.as_mut())).await;
        let Ok(mut next) = started else {
            return self.refuse(stream, peer, &HeadError::TooSlow { limit }.problem()).await;
        };
        while let Some(first_bytes) = next {
            let head = match head::read(&mut stream, first_bytes, self.head_limits(), since).await {
                Ok(Some(head)) => head,
                Ok(None) => return,
                Err(error) => return self.refuse(stream, peer, &error.problem()).await,
            };
            // pingora dates every answer, and panics where it cannot.
            if !clock::can_date_answers() {
                return self.refuse(stream, peer, &Refusal::NotReady(CLOCK_IS_WRONG).problem()).await;
            }
            // Boxed, so that an idle connection holds no memory for a request.
            let served = Box::pin(self.gateway.serve(stream, head, peer, &self.upstreams)).await;
            let Some(kept) = served else { return };
            stream = kept;
            let idle_end = self.idle_end(shutdown_deadline.as_mut(), idle_timer.as_mut());
            next = head::first_bytes(&mut stream, idle_end).await;
            since = None;
        }
    }

    fn head_limits(&self) -> HeadLimits {
        let directory = self.directory.load();
        let bytes = directory.config.limits.head_bytes;
        HeadLimits {
            bytes: bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            time: directory.config.timeouts.head,
        }
    }

    /// Completes when an idle connection is to be closed.
    async fn idle_end(&self, shutdown_deadline: impl Future<Output = ()>, timer: Pin<&mut Sleep>) {
        let limit = self.directory.load().config.timeouts.idle;
        tokio::select! {
            () = shutdown_deadline => {}
            () = idle_for(limit, timer) => {}
        }
    }

    /// Completes when the gateway, on its way down, closes the connections that have no request.
    async fn shutdown_deadline(&self) {
        let mut phase = self.phase.clone();
        // An error means that the server is gone and the process is about to exit.
        let Ok(phase) = phase.wait_for(|phase| phase.is_ending()).await.map(|phase| *phase) else { return };
        let drain = self.directory.load().config.timeouts.drain;
        if let Some(left) = phase.idle_time(drain) {
            tokio::time::sleep(left).await;
        }
    }

    /// Charges a request that does not reach the proxy to its peer, because in a malformed head no `X-Forwarded-For` can be
    /// trusted. A trusted proxy is not charged: one client's requests would use up the rate of all clients behind it.
    fn charge(&self, peer: Peer) -> Option<RateStatus> {
        let directory = self.directory.load();
        if peer.is_trusted(&directory.config.gateway.trusted_proxies) {
            return None;
        }
        directory.client_limits.charge_request(peer.ip()).unwrap_or_else(LimitError::rate_status)
    }

    /// Answers a request that does not reach the proxy. In a malformed head the origin cannot be trusted, so a web page of
    /// an allowed origin does not see why it is refused.
    async fn refuse(&self, mut stream: Stream, peer: Peer, problem: &Problem) {
        let started = Instant::now();
        let request_id = new_request_id();
        let request_id = request_id.to_str().unwrap_or_default();
        let rate_status = self.charge(peer);
        let body = problem.to_json(request_id);
        let status =
            http::StatusCode::from_u16(problem.code.status()).unwrap_or(http::StatusCode::BAD_REQUEST);
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {PROBLEM_JSON}\r\nContent-Length: {}\r\n{X_REQUEST_ID}: {request_id}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n",
            status.as_str(),
            status.canonical_reason().unwrap_or("Error"),
            body.len(),
        );
        for (name, value) in problem.header_fields() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some((policy, state)) = rate_limit_fields(&[("ip", rate_status)]) {
            head.push_str(&format!("RateLimit-Policy: {policy}\r\nRateLimit: {state}\r\n"));
        }
        for (name, value) in self.directory.load().cors.answer_fields(&HeaderMap::new()) {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
        }
        head.push_str("\r\n");
        let mut answer = head.into_bytes();
        answer.extend_from_slice(&body);
        let is_written = matches!(timeout(LINGER_TIME, write(&mut stream, &answer)).await, Ok(Ok(())));
        let summary = RequestSummary {
            tenant: NO_TENANT,
            command: CommandLabel::Unknown,
            status: if is_written { status.as_u16() } else { 0 },
            code: Some(problem.code),
            duration: started.elapsed(),
            upstream: None,
        };
        self.metrics.count_request(&summary);
        access::log_refused_at_edge(peer, request_id, &summary);
        if is_written {
            let _ = timeout(LINGER_TIME, linger(&mut stream)).await;
        }
    }
}

async fn write(stream: &mut Stream, answer: &[u8]) -> io::Result<()> {
    stream.write_all(answer).await?;
    stream.flush().await?;
    stream.shutdown().await
}

/// Discards what the client still sends, because a reset could overtake the answer (RFC 9112, 9.6).
async fn linger(stream: &mut Stream) -> io::Result<()> {
    let mut discarded = [0; 4096];
    let mut left = LINGER_BYTES;
    while left > 0 {
        match stream.read(&mut discarded).await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}
