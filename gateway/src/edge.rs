//! The accept side: connections up to a cap, each head read against its deadline, then pingora's proxy for
//! the request, and the next head of the same connection.

mod framing;
pub mod head;
mod pace;
mod stream;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderMap;
use pingora::apps::HttpServerApp;
use pingora::prelude::timeout;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use sq_shared::headers::{PROBLEM_JSON, X_REQUEST_ID};
use sq_shared::limits::{LINGER_BYTES, LINGER_TIME};
use sq_shared::request_id::new_request_id;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::directory::SharedDirectory;
use crate::proxy::client_ip::Peer;
use crate::proxy::context::Connection;
use crate::proxy::cors::origin_of;
use crate::proxy::limit::{LimitError, Standing, rate_limit_fields};
use crate::proxy::refuse::Refusal;
use crate::proxy::{Gateway, access};
use head::{Head, HeadLimits};
use stream::ClientStream;

/// How long to wait when the process has no descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where connections come from.
pub enum Listener {
    /// A TCP socket.
    Tcp(tokio::net::TcpListener),
    /// A socket file.
    Unix(tokio::net::UnixListener),
}

/// The accept side of one proxy thread; clones share everything.
#[derive(Clone)]
pub struct Edge {
    /// The request path.
    pub proxy: Arc<HttpProxy<Gateway>>,
    /// For the limits of heads.
    pub directory: SharedDirectory,
    /// A permit for each connection; all are back when the last one has ended.
    pub connections: Arc<Semaphore>,
    /// Becomes true when the gateway is told to stop.
    pub stopping: watch::Receiver<bool>,
}

impl Listener {
    async fn accept(&self) -> std::io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                // Without it answers are only slower.
                let _ = socket.set_nodelay(true);
                Ok((Box::new(ClientStream::new(socket)), Peer::Tcp(peer.ip())))
            }
            Self::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok((Box::new(ClientStream::new(socket)), Peer::Unix))
            }
        }
    }
}

impl Edge {
    /// Accepts until the gateway is told to stop. Over the cap, connections wait in the kernel's backlog.
    pub async fn accept(self, listener: Listener) {
        let mut stopping = self.stopping.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept_one(&listener) => accepted,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            match accepted {
                Ok((permit, stream, peer)) => {
                    tokio::spawn(self.clone().serve(stream, peer, permit));
                }
                // The client gave up while it waited in the backlog.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection; is the limit of open files too low?");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept_one(&self, listener: &Listener) -> std::io::Result<(OwnedSemaphorePermit, Stream, Peer)> {
        let permit = Arc::clone(&self.connections).acquire_owned().await.map_err(std::io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        Ok((permit, stream, peer))
    }

    async fn serve(self, mut stream: Stream, peer: Peer, _permit: OwnedSemaphorePermit) {
        let mut first_bytes = BytesMut::new();
        loop {
            let head = match head::read(&mut stream, first_bytes, self.head_limits()).await {
                Ok(Head::Complete(head)) if *self.stopping.borrow() => {
                    return self.refuse(stream, peer, &Refusal::ShuttingDown, &origin_of(&head)).await;
                }
                Ok(Head::Complete(head)) => head,
                Ok(Head::Closed) => return,
                Err(error) => return self.refuse(stream, peer, &error.into(), &HeaderMap::new()).await,
            };
            let mut session = ServerSession::new_http1(stream);
            session.set_pipelined_prefix(head);
            session.set_connection_user_context(Some(Box::new(Connection { peer })));
            let Some(reused) = self.proxy.process_new_http(session, &self.stopping).await else { return };
            (stream, _) = reused.consume();
            match head::first_bytes(&mut stream, self.idle_end()).await {
                Some(bytes) => first_bytes = bytes,
                None => return,
            }
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

    /// Ends when a connection has lain idle for long enough, or when the gateway stops.
    async fn idle_end(&self) {
        let limit = self.directory.load().config.timeouts.idle;
        let mut stopping = self.stopping.clone();
        let _ = timeout(limit, stopping.wait_for(|stopping| *stopping)).await;
    }

    /// Charges a request that pingora never sees to its peer: on a malformed head, no `X-Forwarded-For` can be
    /// believed. A trusted proxy is not charged, for others' sake: everybody behind it would be refused for what one
    /// of them sends.
    fn charge(&self, peer: Peer) -> Option<Standing> {
        let directory = self.directory.load();
        if peer.is_trusted(&directory.config.gateway.trusted_proxies) {
            return None;
        }
        directory.client_limits.charge_request(peer.ip()).unwrap_or_else(LimitError::standing)
    }

    /// Answers a request that pingora never sees. On a malformed head its origin cannot be believed: a page of a
    /// listed one does not see why it is refused.
    async fn refuse(&self, mut stream: Stream, peer: Peer, refusal: &Refusal, origin: &HeaderMap) {
        let problem = refusal.problem();
        let request_id = new_request_id();
        let request_id = request_id.to_str().unwrap_or_default();
        access::log_refused_at_edge(peer, request_id, problem.code.status(), problem.code.as_str());
        let standing = self.charge(peer);
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
        if let Some((policy, state)) = rate_limit_fields(&[("ip", standing)]) {
            head.push_str(&format!("RateLimit-Policy: {policy}\r\nRateLimit: {state}\r\n"));
        }
        for (name, value) in self.directory.load().cors.answer_fields(origin) {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
        }
        head.push_str("\r\n");
        let mut answer = head.into_bytes();
        answer.extend_from_slice(&body);
        let _ = timeout(LINGER_TIME, write_and_linger(&mut stream, &answer)).await;
    }
}

/// Writes the answer, then reads what the client still sends, so that no reset overtakes it (RFC 9112, 9.6).
async fn write_and_linger(stream: &mut Stream, answer: &[u8]) -> std::io::Result<()> {
    stream.write_all(answer).await?;
    stream.flush().await?;
    stream.shutdown().await?;
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
