//! A server's connections: a few at once, and always a place for one more. A program on this machine may open as many as it
//! likes: when all places are taken, the connection that has kept the server waiting longest loses its place.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long a connection may be without a whole head before it can lose its place. A client sends its head when it
/// connects; even a flood of others lets it have this long.
const SILENCE: Duration = Duration::from_millis(25);

/// How long an answer may wait for its client before the connection can lose its place.
const UNREAD: Duration = Duration::from_secs(1);

/// How long to wait after a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection waits for.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// A whole head; at a worker, one with a right key.
    Silent,
    /// The server's work. The connection keeps its place.
    InService,
    /// The client, which has to read its answer.
    Answering,
}

/// The connections of one server. Clones share everything.
#[derive(Debug, Clone)]
pub struct Connections {
    places: Arc<Places>,
    open: TaskTracker,
}

#[derive(Debug)]
struct Places {
    most: usize,
    taken: Mutex<Occupied>,
    /// A place was given back, or can be taken away sooner. The accept loop alone waits for it.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Occupied {
    next: u64,
    by_number: BTreeMap<u64, Holder>,
}

/// A connection that has a place.
#[derive(Debug)]
struct Holder {
    stage: Stage,
    since: Instant,
    /// Dropped with the place, which ends the connection.
    _stay: oneshot::Sender<Infallible>,
}

impl Holder {
    /// When the connection can lose its place; `None` while it waits for the server.
    fn overdue_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Silent => Some(self.since + SILENCE),
            Stage::InService => None,
            Stage::Answering => Some(self.since + UNREAD),
        }
    }
}

impl Connections {
    /// For up to this many connections, one of which is the next to be accepted.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let places = Places { most, taken: Mutex::default(), changed: Notify::new() };
        Self { places: Arc::new(places), open: TaskTracker::new() }
    }

    /// Accepts the next connection. The place is taken first: when this future is dropped, no connection is lost.
    pub async fn accept(&self, listener: &TcpListener) -> (TcpStream, SocketAddr, Place, Eviction) {
        let (place, eviction) = self.take_place().await;
        loop {
            match listener.accept().await {
                Ok((stream, client)) => {
                    place.enter(Stage::Silent);
                    return (stream, client, place, eviction);
                }
                // The client gave up while it waited in the backlog.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits until every connection has ended. Accept none meanwhile.
    pub async fn ended(&self) {
        self.open.close();
        self.open.wait().await;
    }

    async fn take_place(&self) -> (Place, Eviction) {
        let places = &self.places;
        if places.make_room(false).is_err() {
            // What has arrived on the connections is read before any of them counts as silent.
            tokio::task::yield_now().await;
        }
        while let Err(at) = places.make_room(true) {
            match at {
                Some(at) => _ = tokio::time::timeout_at(at.into(), places.changed.notified()).await,
                None => places.changed.notified().await,
            }
        }
        let (stay, evicted) = oneshot::channel();
        let mut taken = places.lock();
        let number = taken.next;
        taken.next += 1;
        let holder = Holder { stage: Stage::Silent, since: Instant::now(), _stay: stay };
        taken.by_number.insert(number, holder);
        (Place { places: Arc::clone(places), number, _open: self.open.token() }, Eviction(evicted))
    }
}

impl Places {
    /// Looks for a free place. If all are taken and it `may_evict`, the connection that is overdue longest is closed.
    /// The error is when there can be a place; `None` while every connection waits for the server.
    fn make_room(&self, may_evict: bool) -> Result<(), Option<Instant>> {
        let mut taken = self.lock();
        if taken.by_number.len() < self.most {
            return Ok(());
        }
        let overdue = |(number, holder): (&u64, &Holder)| Some((holder.overdue_at()?, *number));
        match taken.by_number.iter().filter_map(overdue).min() {
            Some((at, number)) if may_evict && at <= Instant::now() => {
                taken.by_number.remove(&number);
                Ok(())
            }
            next => Err(next.map(|(at, _)| at)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Occupied> {
        // No code panics while it holds the lock.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    number: u64,
    _open: TaskTrackerToken,
}

impl Place {
    /// Notes what the connection waits for from now on.
    pub fn enter(&self, stage: Stage) {
        if let Some(holder) = self.places.lock().by_number.get_mut(&self.number) {
            (holder.stage, holder.since) = (stage, Instant::now());
        }
        self.places.changed.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().by_number.remove(&self.number);
        self.places.changed.notify_one();
    }
}

/// Ends a connection that loses its place.
#[derive(Debug)]
pub struct Eviction(oneshot::Receiver<Infallible>);

impl Eviction {
    /// Serves the connection until that ends, or the place is lost.
    pub async fn or(self, serving: impl Future) {
        tokio::select! {
            _ = serving => {}
            _ = self.0 => {}
        }
    }
}
