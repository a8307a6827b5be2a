//! The idle connections to workers that a proxy thread keeps for the next request, per tenant, the most recently used first.
//! Each thread has its own pool, because a connection is woken on the thread that opened it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use pingora::prelude::timeout;
use pingora::protocols::Stream;
use sq_shared::limits::UPSTREAM_CONNECT_TIMEOUT;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::failure::WorkerError;
use super::route::{self, Upstream};
use super::worker_socket;
use crate::directory::SharedDirectory;

/// The number of connections that a thread keeps. When there are more, the one idle for longest is closed.
const IDLE_CONNECTIONS: usize = 2048;

/// How often a thread closes connections that are of no more use.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The idle connections of one thread.
#[derive(Default)]
pub(crate) struct UpstreamPool {
    idle: Mutex<IdleConnections>,
}

/// By the tenant's group. The most recently used connection is at the back of its queue.
#[derive(Default)]
struct IdleConnections {
    by_group: HashMap<u64, VecDeque<IdleConnection>>,
    count: usize,
}

struct IdleConnection {
    stream: Stream,
    address: SocketAddr,
    since: Instant,
}

impl UpstreamPool {
    /// Takes an idle connection to the worker. The worker may just have closed it.
    pub(crate) fn take(&self, upstream: &Upstream) -> Option<Stream> {
        loop {
            let mut connection = self.lock().take(upstream.group)?;
            if connection.address == upstream.address && connection.is_usable(upstream.idle_timeout) {
                return Some(connection.stream);
            }
        }
    }

    /// Keeps a connection on which an answer has ended.
    pub(crate) fn keep(&self, upstream: &Upstream, stream: Stream) {
        let connection = IdleConnection { stream, address: upstream.address, since: Instant::now() };
        // Closed after the lock is released.
        let _surplus = self.lock().keep(upstream.group, connection);
    }

    /// Runs indefinitely, and closes connections that are idle for too long or that their workers have closed.
    pub(crate) async fn close_idle(self: Arc<Self>, directory: SharedDirectory) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            let idle_timeout = route::upstream_idle_timeout(&directory.load());
            self.lock().retain(|connection| connection.is_usable(idle_timeout));
        }
    }

    /// A panic under the lock leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, IdleConnections> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdleConnections {
    fn take(&mut self, group: u64) -> Option<IdleConnection> {
        let connection = self.by_group.get_mut(&group)?.pop_back()?;
        self.count -= 1;
        Some(connection)
    }

    /// Returns the connection that exceeds the limit.
    fn keep(&mut self, group: u64, connection: IdleConnection) -> Option<IdleConnection> {
        let surplus = if self.count < IDLE_CONNECTIONS { None } else { self.take_oldest() };
        self.by_group.entry(group).or_default().push_back(connection);
        self.count += 1;
        surplus
    }

    fn take_oldest(&mut self) -> Option<IdleConnection> {
        let fronts = self.by_group.iter().filter_map(|(group, queue)| Some((queue.front()?.since, *group)));
        let (_, group) = fronts.min()?;
        self.count -= 1;
        self.by_group.get_mut(&group)?.pop_front()
    }

    fn retain(&mut self, mut is_kept: impl FnMut(&mut IdleConnection) -> bool) {
        for queue in self.by_group.values_mut() {
            queue.retain_mut(&mut is_kept);
        }
        self.by_group.retain(|_, queue| !queue.is_empty());
        self.count = self.by_group.values().map(VecDeque::len).sum();
    }
}

impl IdleConnection {
    /// Whether it is not idle for too long, and its worker has neither closed it nor sent anything.
    fn is_usable(&mut self, idle_timeout: Duration) -> bool {
        let mut byte = [0];
        // This costs a system call only if the runtime has noted input.
        let mut read = pin!(tokio::task::unconstrained(self.stream.read(&mut byte)));
        let is_quiet = read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        is_quiet && self.since.elapsed() < idle_timeout
    }
}

/// Opens a connection to the worker, for a request that has this much time left.
pub(super) async fn connect(upstream: &Upstream, left: Duration) -> Result<Stream, WorkerError> {
    let connected = timeout(left.min(UPSTREAM_CONNECT_TIMEOUT), TcpStream::connect(upstream.address)).await;
    let socket = connected.map_err(|_| WorkerError::ConnectTimedOut)?;
    let socket = socket.map_err(|error| WorkerError::NotListening(error.kind()))?;
    // If this fails, requests are only slower.
    let _ = socket.set_nodelay(true);
    Ok(worker_socket::stream(socket))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::stream::SocketStream;

    const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

    /// A worker that accepts, and the ends of its connections.
    struct Worker {
        listener: TcpListener,
        upstream: Upstream,
    }

    impl Worker {
        async fn by_group(group: u64) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let upstream = Upstream {
                address: listener.local_addr().unwrap(),
                group,
                idle_timeout: IDLE_TIMEOUT,
                answer: IDLE_TIMEOUT,
            };
            Self { listener, upstream }
        }

        /// A new connection, and the worker's end of it.
        async fn connection(&self) -> (Stream, TcpStream) {
            let stream = connect(&self.upstream, IDLE_TIMEOUT).await.unwrap();
            (stream, self.listener.accept().await.unwrap().0)
        }
    }

    #[tokio::test]
    async fn a_tenant_gets_its_own_connections_the_last_used_first() {
        let (pool, alice) = (UpstreamPool::default(), Worker::by_group(1).await);
        let (first, _first_end) = alice.connection().await;
        let (second, _second_end) = alice.connection().await;
        let ids = [first.id(), second.id()];
        pool.keep(&alice.upstream, first);
        pool.keep(&alice.upstream, second);
        let bob = Upstream { group: 2, ..alice.upstream };
        assert!(pool.take(&bob).is_none(), "another tenant on the same slot");
        assert_eq!(pool.take(&alice.upstream).unwrap().id(), ids[1]);
        let moved = Worker::by_group(1).await;
        assert!(pool.take(&moved.upstream).is_none(), "the same tenant on another slot");
        assert!(pool.take(&alice.upstream).is_none(), "what led to the old slot is closed");
    }

    #[tokio::test]
    async fn connecting_to_a_full_queue_takes_no_longer_than_the_request_has_left() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Upstream { address, group: 1, idle_timeout: IDLE_TIMEOUT, answer: IDLE_TIMEOUT };
        let mut queued = Vec::new();
        loop {
            let began = Instant::now();
            match connect(&upstream, UPSTREAM_CONNECT_TIMEOUT / 20).await {
                Ok(stream) => queued.push(stream),
                Err(error) => {
                    assert_eq!(error, WorkerError::ConnectTimedOut);
                    assert!(began.elapsed() < UPSTREAM_CONNECT_TIMEOUT / 2, "{:?}", began.elapsed());
                    break;
                }
            }
            assert!(queued.len() < 10, "the queue has no end");
        }
    }

    #[tokio::test]
    async fn what_its_worker_closed_or_wrote_to_is_not_used_again() {
        let (pool, alice) = (UpstreamPool::default(), Worker::by_group(1).await);
        let (closed, end) = alice.connection().await;
        drop(end);
        let (written, mut other_end) = alice.connection().await;
        other_end.write_all(b"HTTP/1.1 408 Request Timeout\r\n").await.unwrap();
        for mut stream in [closed, written] {
            // Lets the runtime note the input, as it does before a request.
            assert!(stream.read(&mut [0]).await.is_ok());
            pool.keep(&alice.upstream, stream);
        }
        assert!(pool.take(&alice.upstream).is_none());
    }

    #[tokio::test]
    async fn what_is_idle_for_too_long_is_not_used_again() {
        let (pool, alice) = (UpstreamPool::default(), Worker::by_group(1).await);
        let (stream, _end) = alice.connection().await;
        pool.keep(&alice.upstream, stream);
        assert!(pool.take(&Upstream { idle_timeout: Duration::ZERO, ..alice.upstream }).is_none());
    }

    /// A connection whose other end stays open.
    fn idle_connection(number: i32, since: Instant) -> (IdleConnection, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1);
        let address = "127.0.0.1:1341".parse().unwrap();
        (IdleConnection { stream: Box::new(SocketStream::new(near, number)), address, since }, far)
    }

    #[test]
    fn at_the_cap_the_one_idle_for_longest_is_closed() {
        let (mut idle, began) = (IdleConnections::default(), Instant::now());
        let mut far_ends = Vec::new();
        for number in 0..=IDLE_CONNECTIONS {
            let since = began + Duration::from_millis(number as u64);
            let (connection, far) = idle_connection(number as i32, since);
            far_ends.push(far);
            let surplus = idle.keep(number as u64 % 3, connection);
            assert_eq!(surplus.map(|oldest| oldest.stream.id()), (number == IDLE_CONNECTIONS).then_some(0));
        }
        assert_eq!(idle.count, IDLE_CONNECTIONS);
        // Half of the workers close theirs.
        far_ends.truncate(IDLE_CONNECTIONS / 2);
        idle.retain(|connection| connection.is_usable(IDLE_TIMEOUT));
        assert_eq!(idle.count, IDLE_CONNECTIONS / 2 - 1);
        idle.retain(|connection| connection.is_usable(Duration::ZERO));
        assert!(idle.count == 0 && idle.by_group.is_empty());
    }
}
