//! What all connections of a worker share: the store, the settings, and whether anybody is being served.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use sq_shared::data_root::DirectoryId;
use sq_shared::registry::Key;
use sq_shared::tenant::TenantName;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::server::activity::{Activity, Busy};
use crate::server::answer_room::AnswerRoom;
use crate::server::body;
use crate::server::commits::Commits;
use crate::server::room::Room;
use crate::server::served::Served;
use crate::settings::{Absence, WorkerSettings};
use crate::store::{Limits, Store};

/// The drain of a worker that was started alone: the config's default.
const DRAIN_ALONE: Duration = Duration::from_secs(30);

/// Who may ask.
#[derive(Debug, Clone)]
pub enum Access {
    /// Anybody: `--no-auth`, on a loopback address only.
    Open,
    /// Whoever has one of these keys.
    Keys(Vec<Key>),
}

/// One tenant's worker. All of it lives in one thread.
#[derive(Debug)]
pub struct Worker {
    /// Whose it is, when it has a name.
    pub tenant: Option<TenantName>,
    pub(super) store: RefCell<Store>,
    /// The directory that the store has open, when the pool wants to know.
    directory: Option<DirectoryId>,
    /// Why there is no directory; then nothing is served.
    pub(super) absence: Option<Absence>,
    access: RefCell<Access>,
    body_bytes: Cell<Option<u64>>,
    idle_timeout: Cell<Option<Duration>>,
    drain: Cell<Duration>,
    /// Told when the store can do no more.
    pub(super) store_failed: Notify,
    pub(super) commits: Commits,
    pub(super) body_room: Room,
    pub(super) answer_room: AnswerRoom,
    /// Whose turn it is to read the directory for a list.
    pub(super) listing_turns: Semaphore,
    activity: Arc<Activity>,
    connections: Cell<u64>,
    served: Served,
}

impl Worker {
    /// A worker that was started alone: it never ends by itself.
    pub fn alone(tenant: Option<TenantName>, store: Store, access: Access, body_bytes: Option<u64>) -> Self {
        Self {
            tenant,
            store: RefCell::new(store),
            directory: None,
            absence: None,
            access: RefCell::new(access),
            body_bytes: Cell::new(body_bytes),
            idle_timeout: Cell::new(None),
            drain: Cell::new(DRAIN_ALONE),
            store_failed: Notify::new(),
            commits: Commits::default(),
            body_room: body::room(),
            answer_room: AnswerRoom::new(),
            listing_turns: Semaphore::new(1),
            activity: Arc::new(Activity::new()),
            connections: Cell::new(0),
            served: Served::default(),
        }
    }

    /// A worker of the pool.
    pub fn of_pool(tenant: Option<TenantName>, store: Store, settings: WorkerSettings) -> Self {
        let worker = Self::alone(tenant, store, Access::Keys(Vec::new()), settings.body_bytes);
        worker.apply_settings(settings);
        worker
    }

    /// The worker, which gives its directory up when it is told that another one is at the path.
    #[must_use]
    pub fn on_directory(self, directory: DirectoryId) -> Self {
        Self { directory: Some(directory), ..self }
    }

    /// A worker of the pool that stands in while the tenant's directory is missing.
    pub fn standing_in(tenant: Option<TenantName>, absence: Absence, settings: WorkerSettings) -> Self {
        let store = Store::absent(Limits::from(&settings));
        Self { absence: Some(absence), ..Self::of_pool(tenant, store, settings) }
    }

    /// Whether its directory is not the tenant's any more.
    pub(super) fn is_displaced(&self) -> bool {
        self.store.borrow().is_displaced()
    }

    /// Takes new settings over, from the next request on.
    pub fn apply_settings(&self, settings: WorkerSettings) {
        if self.directory.zip(settings.directory).is_some_and(|(open, at_path)| open != at_path) {
            self.store.borrow_mut().displace();
        }
        self.store.borrow_mut().set_limits(Limits::from(&settings));
        self.body_bytes.set(settings.body_bytes);
        self.idle_timeout.set(Some(settings.idle_timeout()));
        self.drain.set(settings.drain());
        self.access.replace(Access::Keys(settings.keys));
    }

    /// Who may ask, at this moment.
    pub(super) fn access(&self) -> std::cell::Ref<'_, Access> {
        self.access.borrow()
    }

    /// The longest body, in bytes.
    pub(super) fn body_bytes(&self) -> Option<u64> {
        self.body_bytes.get()
    }

    /// Whether the pool started it; then only it ends by itself.
    pub(super) fn is_of_pool(&self) -> bool {
        self.idle_timeout.get().is_some()
    }

    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout.get()
    }

    /// How long requests in flight may take to end, once the worker is told to stop.
    pub(super) fn drain(&self) -> Duration {
        self.drain.get()
    }

    /// When the last request ended, or when the worker began. While one is served, it says nothing.
    pub(super) fn last_active(&self) -> Instant {
        self.activity.last()
    }

    /// Whether an answer is due or on its way, or a connection has not brought its first one yet.
    pub(super) fn is_busy(&self) -> bool {
        self.activity.is_busy()
    }

    /// The number of a new connection, counted from 1.
    pub(super) fn next_connection(&self) -> u64 {
        self.connections.set(self.connections.get() + 1);
        self.connections.get()
    }

    /// A command was applied and answered with a status below 500, which the pool wants to know.
    pub(super) fn has_served(&self) {
        if self.is_of_pool() {
            self.served.say();
        }
    }

    /// Keeps the worker busy for as long as the value lives.
    pub(super) fn busy(&self) -> Busy {
        self.activity.busy()
    }
}

impl From<&WorkerSettings> for Limits {
    fn from(settings: &WorkerSettings) -> Self {
        let WorkerSettings { quota_bytes, phexts, coordinate, memory_bytes, .. } = *settings;
        Self { quota_bytes, phexts, coordinate, memory_bytes }
    }
}
