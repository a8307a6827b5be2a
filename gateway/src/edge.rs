//! The accept side: connections up to a cap, each head read against its deadline, then the proxy for the request, and the
//! next head of the same connection.

mod byte_set;
pub mod departure;
mod framing;
pub mod head;
mod idle;
mod pace;

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
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
use sq_shared::request_id::new_request_id;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Sleep;

use crate::directory::SharedDirectory;
use crate::listen::Listening;
use crate::metrics::{Command, Ended, Metrics, NO_TENANT};
use crate::phase::Phase;
use crate::proxy::client_ip::Peer;
use crate::proxy::limit::{LimitError, Standing, rate_limit_fields};
use crate::proxy::refuse::Refusal;
use crate::proxy::upstream_pool::UpstreamPool;
use crate::proxy::{Gateway, access};
use crate::stream::SocketStream;
use head::{Head, HeadError, HeadLimits};
use pace::{Paced, Socket};

/// How long to wait when the process has no descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Room for an answer's head and a short scroll, which leave in one packet. What is longer goes out past the buffer.
const WRITE_BUFFER_BYTES: usize = 2048;

/// What is said while the clock stands where no answer can be dated.
const CLOCK_IS_WRONG: &str =
    "The server's clock is wrong: it stands before 1970, or after 9999. Tell your host.";

/// Where connections come from.
pub enum Listener {
    /// A TCP socket.
    Tcp(tokio::net::TcpListener),
    /// A socket file.
    Unix(tokio::net::UnixListener),
}

/// A client's place among the connections, which are counted.
struct Place {
    _permit: OwnedSemaphorePermit,
    open: IntGauge,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, open: &IntGauge) -> Self {
        open.inc();
        Self { _permit: permit, open: open.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// The accept side of one proxy thread; clones share everything.
#[derive(Clone)]
pub struct Edge {
    /// The request path.
    pub gateway: Arc<Gateway>,
    /// The connections to workers that this thread keeps.
    pub upstreams: Arc<UpstreamPool>,
    /// For the limits of heads.
    pub directory: SharedDirectory,
    /// Counts connections, and the requests that are refused here.
    pub metrics: Arc<Metrics>,
    /// A permit for each connection.
    pub connections: Arc<Semaphore>,
    /// Where the gateway stands.
    pub phase: watch::Receiver<Phase>,
    /// Tells the server that this accept loop, or a connection of it, is still there.
    pub presence: mpsc::Sender<Infallible>,
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(socket, peer)| of_tcp(socket, peer)),
            Self::Unix(listener) => listener.accept().await.map(|(socket, _)| of_unix(socket)),
        }
    }

    /// Everybody in the queue now, without waiting for more.
    fn into_queue(self) -> io::Result<impl Iterator<Item = io::Result<(Stream, Peer)>>> {
        let listener = self.into_std()?;
        let accept = move || match &listener {
            Listening::Tcp(listener) => {
                let (socket, peer) = listener.accept()?;
                socket.set_nonblocking(true)?;
                Ok(of_tcp(TcpStream::from_std(socket)?, peer))
            }
            Listening::Unix(listener, _) => {
                let (socket, _) = listener.accept()?;
                socket.set_nonblocking(true)?;
                Ok(of_unix(UnixStream::from_std(socket)?))
            }
        };
        let is_there = |next: &io::Result<_>| {
            !next.as_ref().is_err_and(|error: &io::Error| error.kind() == ErrorKind::WouldBlock)
        };
        Ok(std::iter::repeat_with(accept).take_while(is_there))
    }

    fn into_std(self) -> io::Result<Listening> {
        match self {
            Self::Tcp(listener) => listener.into_std().map(Listening::Tcp),
            Self::Unix(listener) => listener.into_std().map(|listener| Listening::Unix(listener, None)),
        }
    }
}

fn of_tcp(socket: TcpStream, peer: SocketAddr) -> (Stream, Peer) {
    // Without it answers are only slower.
    let _ = socket.set_nodelay(true);
    (client_stream(socket), Peer::Tcp(peer.ip()))
}

fn of_unix(socket: UnixStream) -> (Stream, Peer) {
    (client_stream(socket), Peer::Unix)
}

/// A client's connection.
type ClientStream<S> = SocketStream<BufWriter<Paced<S>>>;

fn client_stream<S: Socket + AsRawFd + 'static>(socket: S) -> Stream {
    let fd = socket.as_raw_fd();
    Box::new(ClientStream::new(BufWriter::with_capacity(WRITE_BUFFER_BYTES, Paced::new(socket)), fd))
}

/// Makes a client's connection end with a reset: an answer that was to end with it has broken off. (A Unix socket has none.)
pub fn reset_on_close(stream: &Stream) {
    if let Some(client) = (**stream).as_any().downcast_ref::<ClientStream<TcpStream>>() {
        client.transport().get_ref().reset_on_close();
    }
}

impl Edge {
    /// Accepts until the gateway has no more use for new connections, and then those who are in the queue, unless another
    /// gateway has the same one: the kernel has told them that they are connected. Over the cap, connections wait there.
    pub async fn accept(self, listener: Listener) {
        let mut phase = self.phase.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept_one(&listener) => accepted,
                _ = phase.wait_for(|phase| phase.is_closing()) => break,
            };
            match accepted {
                Ok((place, stream, peer)) => _ = tokio::spawn(self.clone().serve(stream, peer, place)),
                // The client gave up while it waited in the backlog.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection; is the limit of open files too low?");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        if phase.borrow().leaves_queue() {
            return;
        }
        if let Err(error) = self.accept_queue(listener).await {
            tracing::error!(%error, "cannot accept those who wait, who are cut off");
        }
    }

    async fn accept_one(&self, listener: &Listener) -> io::Result<(Place, Stream, Peer)> {
        let permit = Arc::clone(&self.connections).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        Ok((Place::new(permit, &self.metrics.connections), stream, peer))
    }

    async fn accept_queue(self, listener: Listener) -> io::Result<()> {
        for accepted in listener.into_queue()? {
            match accepted {
                Ok((stream, peer)) => {
                    let permit =
                        Arc::clone(&self.connections).acquire_owned().await.map_err(io::Error::other)?;
                    let place = Place::new(permit, &self.metrics.connections);
                    tokio::spawn(self.clone().serve(stream, peer, place));
                }
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn serve(self, mut stream: Stream, peer: Peer, _place: Place) {
        // The first head's deadline runs from the connection's start, that of each further one from its first byte.
        let mut since = Some(Instant::now());
        let limit = self.head_limits().time;
        // Both are made once a connection: to make them anew for each of its requests would cost more than the wait. The
        // last call comes once: `first_bytes` gives nothing then, and nobody waits for it again.
        let mut last_call = pin!(self.last_call());
        let mut idle_timer = pin!(tokio::time::sleep(limit));
        let begun = timeout(limit, head::first_bytes(&mut stream, last_call.as_mut())).await;
        let Ok(mut next) = begun else {
            let error = HeadError::TooSlow { limit };
            return self.refuse(stream, peer, &error.into()).await;
        };
        while let Some(first_bytes) = next {
            let head = match head::read(&mut stream, first_bytes, self.head_limits(), since).await {
                Ok(Head::Complete(head)) => head,
                Ok(Head::Closed) => return,
                Err(error) => return self.refuse(stream, peer, &error.into()).await,
            };
            // pingora dates every answer, and panics where it cannot.
            if !clock::can_date_answers() {
                return self.refuse(stream, peer, &Refusal::NotReady(CLOCK_IS_WRONG)).await;
            }
            // Boxed, so that a connection that lies idle holds no room for a request.
            let served = Box::pin(self.gateway.serve(stream, head, peer, &self.upstreams)).await;
            let Some(kept) = served else { return };
            stream = kept;
            let idle_end = self.idle_end(last_call.as_mut(), idle_timer.as_mut());
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

    /// Ends when a connection has lain idle for long enough.
    async fn idle_end(&self, last_call: impl Future<Output = ()>, timer: Pin<&mut Sleep>) {
        let limit = self.directory.load().config.timeouts.idle;
        tokio::select! {
            () = last_call => {}
            () = idle::lie_idle(limit, timer) => {}
        }
    }

    /// Ends when a connection without a request is no longer kept because the gateway ends.
    async fn last_call(&self) {
        let mut phase = self.phase.clone();
        // The server has dropped its end when the process is at its own.
        let Ok(phase) = phase.wait_for(|phase| phase.is_ending()).await.map(|phase| *phase) else { return };
        let drain = self.directory.load().config.timeouts.drain;
        if let Some(left) = phase.idle_time(drain) {
            tokio::time::sleep(left).await;
        }
    }

    /// Charges a request that the proxy never sees to its peer: on a malformed head, no `X-Forwarded-For` can be
    /// believed. A trusted proxy is not charged, for others' sake: everybody behind it would be refused for what one
    /// of them sends.
    fn charge(&self, peer: Peer) -> Option<Standing> {
        let directory = self.directory.load();
        if peer.is_trusted(&directory.config.gateway.trusted_proxies) {
            return None;
        }
        directory.client_limits.charge_request(peer.ip()).unwrap_or_else(LimitError::standing)
    }

    /// Answers a request that the proxy never sees. On a malformed head its origin cannot be believed: a page of a
    /// listed one does not see why it is refused.
    async fn refuse(&self, mut stream: Stream, peer: Peer, refusal: &Refusal) {
        let started = Instant::now();
        let problem = refusal.problem();
        let request_id = new_request_id();
        let request_id = request_id.to_str().unwrap_or_default();
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
        for (name, value) in self.directory.load().cors.answer_fields(&HeaderMap::new()) {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
        }
        head.push_str("\r\n");
        let mut answer = head.into_bytes();
        answer.extend_from_slice(&body);
        let is_written = matches!(timeout(LINGER_TIME, write(&mut stream, &answer)).await, Ok(Ok(())));
        let ended = Ended {
            tenant: NO_TENANT,
            command: Command::Unknown,
            status: if is_written { status.as_u16() } else { 0 },
            code: Some(problem.code),
            duration: started.elapsed(),
            upstream: None,
        };
        self.metrics.ended(&ended);
        access::log_refused_at_edge(peer, request_id, &ended);
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

/// Reads what the client still sends, so that no reset overtakes the answer (RFC 9112, 9.6).
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
