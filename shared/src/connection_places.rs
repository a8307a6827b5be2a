//! Places for connections, and always one for a newcomer. A program on this machine may open as many connections as it likes:
//! when all places are taken, the connection that has kept the server waiting longest loses its own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

/// How long a connection may be without a whole head before it can lose its place. A client sends its head when it
/// connects; even a flood of others lets it have this long.
const SILENCE: Duration = Duration::from_millis(25);

/// How long an answer may wait for its client before the connection can lose its place.
const UNREAD: Duration = Duration::from_secs(1);

/// What a connection waits for.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// A whole head; at a worker, one with a right key.
    Silent,
    /// Its answer. It keeps its place: the work is the server's.
    InService,
    /// That the client takes its answer.
    Answering,
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
    /// From when on it keeps the server waiting.
    fn overdue_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Silent => Some(self.since + SILENCE),
            Stage::InService => None,
            Stage::Answering => Some(self.since + UNREAD),
        }
    }
}

/// Places for connections.
#[derive(Debug)]
pub struct Places {
    most: usize,
    holders: Mutex<Holders>,
    /// A place was given back, or can be taken away sooner. The accept loop alone waits for it.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Holders {
    next: u64,
    by_number: BTreeMap<u64, Holder>,
}

/// Whether there is a place.
enum Room {
    /// There is.
    Free,
    /// Not before this time; `None` while every connection waits for the server.
    Later(Option<Instant>),
}

impl Places {
    /// So many places.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, holders: Mutex::default(), changed: Notify::new() })
    }

    /// A place for one more connection, once there is one, and what ends when the place is taken away again. It counts as
    /// silent from now on.
    pub async fn take(places: &Arc<Self>) -> (Place, oneshot::Receiver<Infallible>) {
        if !matches!(places.make_room(false), Room::Free) {
            // What has come on the connections is read before any of them counts as silent.
            tokio::task::yield_now().await;
        }
        while let Room::Later(at) = places.make_room(true) {
            match at {
                Some(at) => _ = tokio::time::timeout_at(at.into(), places.changed.notified()).await,
                None => places.changed.notified().await,
            }
        }
        let (stay, evicted) = oneshot::channel();
        let mut holders = places.lock();
        let number = holders.next;
        holders.next += 1;
        let holder = Holder { stage: Stage::Silent, since: Instant::now(), _stay: stay };
        holders.by_number.insert(number, holder);
        (Place { places: Arc::clone(places), number }, evicted)
    }

    /// Looks for room. When all places are taken and it `may_evict`, the connection that is overdue longest loses its own.
    fn make_room(&self, may_evict: bool) -> Room {
        let mut holders = self.lock();
        if holders.by_number.len() < self.most {
            return Room::Free;
        }
        let overdue = |(number, holder): (&u64, &Holder)| Some((holder.overdue_at()?, *number));
        match holders.by_number.iter().filter_map(overdue).min() {
            Some((at, number)) if may_evict && at <= Instant::now() => {
                holders.by_number.remove(&number);
                Room::Free
            }
            next => Room::Later(next.map(|(at, _)| at)),
        }
    }

    /// Ends when no connection is left. No call of [`Places::take`] may be waiting.
    pub async fn emptied(&self) {
        while !self.lock().by_number.is_empty() {
            self.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Holders> {
        // No code panics while it holds the lock.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    number: u64,
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
