//! What all connections of a worker share: the store, the settings, the memory budgets and the activity.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use sq_shared::file_id::FileId;
use sq_shared::registry::Key;
use sq_shared::tenant::TenantName;
use tokio::sync::{Notify, Semaphore};

use crate::server::activity::Activity;
use crate::server::answer_budget::AnswerBudget;
use crate::server::body;
use crate::server::memory_budget::MemoryBudget;
use crate::settings::{MissingData, WorkerSettings};
use crate::store::{Limits, Store};

/// The drain timeout of a standalone worker: the config's default.
const STANDALONE_DRAIN: Duration = Duration::from_secs(30);

/// Which keys a worker accepts.
#[derive(Debug, Clone)]
pub enum Access {
    /// Every request, without a key: `--no-auth`, on a loopback address only.
    Open,
    /// Requests with one of these keys.
    Keys(Vec<Key>),
}

/// One tenant's worker. All of it stays on one thread.
#[derive(Debug)]
pub struct Worker {
    /// The tenant's name; a standalone worker may have none.
    pub(crate) tenant: Option<TenantName>,
    pub(super) store: RefCell<Store>,
    /// The directory that the store has open, to compare with the pool's settings.
    directory: Option<FileId>,
    /// What is missing on the server; then every command is refused.
    pub(super) missing_data: Option<MissingData>,
    pub(super) access: RefCell<Access>,
    body_bytes: Cell<Option<u64>>,
    pub(super) idle_timeout: Cell<Option<Duration>>,
    /// How long requests in flight may take once the worker stops.
    pub(super) drain: Cell<Duration>,
    /// Notified when the store can't go on.
    pub(super) store_failed: Notify,
    /// Notified when the store may have jobs to run.
    pub(super) jobs_wanted: Notify,
    /// Notified when one of the store's jobs has ended.
    pub(super) job_ended: Notify,
    pub(super) body_budget: MemoryBudget,
    pub(super) answer_budget: AnswerBudget,
    /// Held while a list reads the directory.
    pub(super) listing_permit: Semaphore,
    /// Busy while a request is in flight, or a connection has yet to send its first.
    pub(super) activity: Arc<Activity>,
    connections: Cell<u64>,
    /// Whether the pool was told that this worker has served.
    has_told_pool: Cell<bool>,
}

impl Worker {
    /// A worker without a pool. It has no idle timeout.
    pub fn standalone(
        tenant: Option<TenantName>,
        store: Store,
        access: Access,
        body_bytes: Option<u64>,
    ) -> Self {
        Self {
            tenant,
            store: RefCell::new(store),
            directory: None,
            missing_data: None,
            access: RefCell::new(access),
            body_bytes: Cell::new(body_bytes),
            idle_timeout: Cell::new(None),
            drain: Cell::new(STANDALONE_DRAIN),
            store_failed: Notify::new(),
            jobs_wanted: Notify::new(),
            job_ended: Notify::new(),
            body_budget: body::budget(),
            answer_budget: AnswerBudget::new(),
            listing_permit: Semaphore::new(1),
            activity: Arc::new(Activity::new()),
            connections: Cell::new(0),
            has_told_pool: Cell::new(false),
        }
    }

    /// A worker of the pool.
    pub(crate) fn for_pool(tenant: Option<TenantName>, store: Store, settings: WorkerSettings) -> Self {
        let worker = Self::standalone(tenant, store, Access::Keys(Vec::new()), settings.body_bytes);
        worker.apply_settings(settings);
        worker
    }

    /// The same worker, which exits once settings name another directory than this one.
    #[must_use]
    pub(crate) fn with_directory(self, directory: FileId) -> Self {
        Self { directory: Some(directory), ..self }
    }

    /// A worker of the pool for a tenant whose data is missing. It refuses every command.
    pub(crate) fn without_data(
        tenant: Option<TenantName>,
        missing_data: MissingData,
        settings: WorkerSettings,
    ) -> Self {
        let store = Store::absent(Limits::from(&settings));
        Self { missing_data: Some(missing_data), ..Self::for_pool(tenant, store, settings) }
    }

    /// Whether the tenant's directory was removed or replaced.
    pub(super) fn is_displaced(&self) -> bool {
        self.store.borrow().is_displaced()
    }

    /// Applies new settings, from the next request on.
    pub(crate) fn apply_settings(&self, settings: WorkerSettings) {
        if self.directory.zip(settings.directory).is_some_and(|(open, at_path)| open != at_path) {
            self.store.borrow_mut().displace();
        }
        self.store.borrow_mut().set_limits(Limits::from(&settings));
        self.body_bytes.set(settings.body_bytes);
        self.idle_timeout.set(Some(settings.idle_timeout()));
        self.drain.set(settings.drain());
        self.access.replace(Access::Keys(settings.keys));
    }

    /// The longest body, in bytes.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes.get().unwrap_or(u64::MAX)
    }

    /// Whether the pool started it.
    pub(super) fn is_of_pool(&self) -> bool {
        self.idle_timeout.get().is_some()
    }

    /// The number of a new connection, from 1.
    pub(super) fn next_connection(&self) -> u64 {
        self.connections.set(self.connections.get() + 1);
        self.connections.get()
    }

    /// A command was answered with a status below 500: tells the pool, once. The pool restarts a worker that had served and
    /// then died at once; one that never served is held back longer after each crash.
    ///
    /// The signal is one byte on standard output, a pipe that the pool also reads after it has reaped the worker. One byte
    /// always fits in the pipe, so the write never blocks.
    pub(super) fn note_served(&self) {
        if self.is_of_pool() && !self.has_told_pool.replace(true) {
            let mut stdout = io::stdout();
            // Fails only when the pool is gone.
            let _ = stdout.write_all(b".").and_then(|()| stdout.flush());
        }
    }
}

impl From<&WorkerSettings> for Limits {
    fn from(settings: &WorkerSettings) -> Self {
        let WorkerSettings { quota_bytes, phexts, coordinate, memory_bytes, .. } = *settings;
        Self { quota_bytes, phexts, coordinate, memory_bytes }
    }
}
