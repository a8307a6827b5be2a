//! The observed state: each slot's socket, worker and history. It has no I/O and no clock: events come in as calls, and
//! the time as a value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sq_shared::file_id::FileId;

use super::backoff::{Backoff, Lifetime};
use super::desired::Assignment;
use crate::settings::{EXIT_DISPLACED, MissingData};

#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// The pool's slots, and those on which the previous pool still has a worker.
    pub(crate) slots: BTreeMap<u16, Slot>,
    /// The number of the program from which workers are started. Each new program has the next number.
    pub(crate) program: u32,
    /// The data root is missing, and with it every tenant's directory.
    pub(crate) is_data_root_missing: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Slot {
    /// What happens to connections while there is no worker.
    pub(crate) socket_mode: SocketMode,
    /// When the waiting connection was reported.
    pub(crate) waiting_since: Option<Instant>,
    pub(crate) worker: Option<Worker>,
    /// The history of the slot's latest tenant.
    pub(crate) history: Option<History>,
    /// The latest result of checking this assignment's directory.
    pub(crate) directory: Option<(Arc<Assignment>, DirectoryState)>,
}

/// What is at the path of a tenant's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectoryState {
    /// Being checked. No worker may start until the result is there.
    Checking,
    /// The tenant's directory, as far as the pool knows.
    Present(FileId),
    /// Nothing that is the tenant's.
    Missing,
}

/// What the pool does with connections to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SocketMode {
    /// Nothing: they wait in the backlog for a worker, or for the next pool.
    #[default]
    Unwatched,
    /// It watches for the first one.
    Watched,
    /// One was reported, and needs a worker.
    ConnectionWaits,
    /// It closes them, because the slot has no tenant.
    Refusing,
}

/// A worker, from its start until its exit was observed.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    /// The tenant and the settings that it was last sent.
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) pid: u32,
    /// What is missing, if it was started to refuse every command.
    pub(crate) missing_data: Option<MissingData>,
    /// When it was started, or inherited from the previous pool.
    pub(crate) since: Instant,
    pub(crate) program: u32,
    /// Since when a connection has waited for it; `None` once it has served.
    pub(crate) waited_since: Option<Instant>,
    /// Set once it was told to stop.
    pub(crate) stop: Option<Stop>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    pub(crate) since: Instant,
    pub(crate) reason: StopReason,
    /// Whether it was killed after that, because it took too long.
    pub(crate) is_killed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The slot has another tenant or none, or the pool stops.
    Unwanted,
    /// There is a new program.
    NewProgram,
    /// It belongs to the previous pool, which stops it.
    OldPool,
    /// Its directory went missing, or the missing one is back.
    DataChanged,
}

/// Why a worker is started. A connection always waits; this is what happened before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum StartReason {
    /// No worker ran.
    #[default]
    Connection,
    /// The last worker crashed.
    Crash,
    /// The last worker was stopped for a new program or a new pool.
    Upgrade,
}

/// The history of a tenant's workers on a slot.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) starts: u64,
    /// How many crashed or failed to start.
    pub(crate) crashes: u64,
    pub(crate) backoff: Backoff,
    pub(crate) next_start: StartReason,
    /// The program of the first worker that crashed before it had served; `None` once a later one has served.
    pub(crate) failed_program: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitKind {
    Stopped,
    Idle,
    /// Its directory was missing, removed or replaced.
    Displaced,
    /// Anything else: it crashed, or exited too early.
    Crashed,
}

impl Observed {
    pub(crate) fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        let slots = ports.into_iter().map(|port| (port, Slot::default())).collect();
        Self { slots, ..Self::default() }
    }

    /// A connection waits. A late report, when the slot is not watched any more, is ignored: the next watch reports the
    /// connection again.
    pub(crate) fn connection_waits(&mut self, port: u16, now: Instant) {
        if let Some(slot) = self.slots.get_mut(&port)
            && slot.socket_mode == SocketMode::Watched
        {
            slot.socket_mode = SocketMode::ConnectionWaits;
            slot.waiting_since = Some(now);
        }
    }

    pub(crate) fn socket_mode_set(&mut self, port: u16, mode: SocketMode) {
        if let Some(slot) = self.slots.get_mut(&port) {
            slot.socket_mode = mode;
        }
    }

    /// A worker was started; returns why.
    pub(crate) fn started(
        &mut self,
        port: u16,
        assignment: Arc<Assignment>,
        pid: u32,
        now: Instant,
    ) -> Option<StartReason> {
        let (program, missing_data) = (self.program, self.missing_data(port, &assignment));
        let slot = self.slots.get_mut(&port)?;
        let history = slot.history_of(&assignment);
        history.starts += 1;
        let reason = std::mem::take(&mut history.next_start);
        slot.socket_mode = SocketMode::Unwatched;
        let waited_since = slot.waiting_since.take();
        slot.worker =
            Some(Worker { assignment, pid, missing_data, since: now, program, waited_since, stop: None });
        Some(reason)
    }

    /// The previous pool still has a worker on this port, and is stopping it.
    pub(crate) fn add_old_pool_worker(
        &mut self,
        port: u16,
        assignment: Arc<Assignment>,
        pid: u32,
        now: Instant,
    ) {
        let stop = Some(Stop { since: now, reason: StopReason::OldPool, is_killed: false });
        let (program, missing_data, waited_since) = (self.program, None, None);
        let worker = Worker { assignment, pid, missing_data, since: now, program, waited_since, stop };
        self.slots.entry(port).or_default().worker = Some(worker);
    }

    /// The worker applied its first command; returns how long a connection had waited for that.
    pub(crate) fn served(&mut self, port: u16, now: Instant) -> Option<Duration> {
        let slot = self.slots.get_mut(&port)?;
        let worker = slot.worker.as_mut()?;
        if let Some(history) = &mut slot.history {
            history.failed_program = None;
        }
        let since = worker.waited_since.take()?;
        Some(now.saturating_duration_since(since))
    }

    /// A worker failed to start, which counts as a crash.
    pub(crate) fn start_failed(&mut self, port: u16, assignment: &Arc<Assignment>, now: Instant) {
        let program = self.program;
        if let Some(slot) = self.slots.get_mut(&port) {
            slot.history_of(assignment).crashed(now, Lifetime::NONE, program);
            slot.socket_mode = SocketMode::Unwatched;
        }
    }

    pub(crate) fn settings_sent(&mut self, port: u16, assignment: Arc<Assignment>) {
        if let Some(worker) = self.worker_mut(port) {
            worker.assignment = assignment;
        }
    }

    pub(crate) fn stopping(&mut self, port: u16, reason: StopReason, now: Instant) {
        if let Some(worker) = self.worker_mut(port) {
            worker.stop = Some(Stop { since: now, reason, is_killed: false });
        }
    }

    pub(crate) fn killed(&mut self, port: u16) {
        if let Some(stop) = self.worker_mut(port).and_then(|worker| worker.stop.as_mut()) {
            stop.is_killed = true;
        }
    }

    /// The worker exited, with this code or by a signal, and had served or not; `None` if there was none.
    pub(crate) fn ended(
        &mut self,
        port: u16,
        code: Option<i32>,
        has_served: bool,
        now: Instant,
    ) -> Option<(Worker, ExitKind)> {
        let slot = self.slots.get_mut(&port)?;
        let worker = slot.worker.take()?;
        slot.socket_mode = SocketMode::Unwatched;
        let lifetime = Lifetime { lasted: now.saturating_duration_since(worker.since), has_served };
        let history = slot.history_of(&worker.assignment);
        let kind = if code == Some(i32::from(EXIT_DISPLACED)) {
            // Backs off as after a crash, so that repeated exits don't keep the pool busy.
            history.backoff.crashed(now, lifetime);
            slot.directory = Some((Arc::clone(&worker.assignment), DirectoryState::Checking));
            ExitKind::Displaced
        } else if let Some(stop) = worker.stop {
            history.next_start = stop.reason.next_start();
            ExitKind::Stopped
        } else if code == Some(0) && lifetime.lasted >= worker.assignment.settings.idle_timeout() {
            history.backoff.reset();
            history.failed_program = None;
            ExitKind::Idle
        } else {
            // Includes exit code 0 before the idle timeout: a worker that only exits needs the back-off too.
            history.crashed(now, lifetime, worker.program);
            ExitKind::Crashed
        };
        Some((worker, kind))
    }

    /// What a worker of this assignment would miss, as far as the pool knows.
    pub(crate) fn missing_data(&self, port: u16, assignment: &Assignment) -> Option<MissingData> {
        if self.is_data_root_missing {
            return Some(MissingData::DataRoot);
        }
        let state = self.slots.get(&port)?.directory_state(assignment)?;
        (state == DirectoryState::Missing).then_some(MissingData::Directory)
    }

    pub(crate) fn stopping_count(&self, reason: StopReason) -> usize {
        let stops = self.slots.values().filter_map(|slot| slot.worker.as_ref()?.stop);
        stops.filter(|stop| stop.reason == reason).count()
    }

    /// How many workers run an older program, and are not stopping.
    pub(crate) fn outdated_count(&self) -> usize {
        let workers = self.slots.values().filter_map(|slot| slot.worker.as_ref());
        workers.filter(|worker| worker.stop.is_none() && worker.program != self.program).count()
    }

    /// How many workers there are, including stopping ones.
    pub(crate) fn worker_count(&self) -> usize {
        self.slots.values().filter(|slot| slot.worker.is_some()).count()
    }

    fn worker_mut(&mut self, port: u16) -> Option<&mut Worker> {
        self.slots.get_mut(&port)?.worker.as_mut()
    }
}

impl StopReason {
    fn next_start(self) -> StartReason {
        match self {
            Self::Unwanted | Self::DataChanged => StartReason::Connection,
            Self::NewProgram | Self::OldPool => StartReason::Upgrade,
        }
    }
}

impl StartReason {
    pub(crate) const ALL: [Self; 3] = [Self::Connection, Self::Crash, Self::Upgrade];

    /// As in the metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Crash => "crash",
            Self::Upgrade => "upgrade",
        }
    }
}

impl Slot {
    /// Until when no worker of this tenant may start, because of crashes; `None` if one may start now.
    pub(crate) fn backs_off_until(&self, assignment: &Assignment, now: Instant) -> Option<Instant> {
        let history =
            self.history.as_ref().filter(|history| history.assignment.is_same_worker(assignment))?;
        history.backoff.waits_until(now)
    }

    /// The latest result of checking this tenant's directory.
    pub(crate) fn directory_state(&self, assignment: &Assignment) -> Option<DirectoryState> {
        let (checked, state) = self.directory.as_ref()?;
        checked.is_same_worker(assignment).then_some(*state)
    }

    /// The history of this tenant. Drops another tenant's.
    fn history_of(&mut self, assignment: &Arc<Assignment>) -> &mut History {
        let same = self.history.take().filter(|history| history.assignment.is_same_worker(assignment));
        let assignment = Arc::clone(assignment);
        self.history.insert(same.unwrap_or(History {
            assignment,
            starts: 0,
            crashes: 0,
            backoff: Backoff::default(),
            next_start: StartReason::default(),
            failed_program: None,
        }))
    }
}

impl History {
    fn crashed(&mut self, now: Instant, lifetime: Lifetime, program: u32) {
        self.crashes += 1;
        self.next_start = StartReason::Crash;
        self.backoff.crashed(now, lifetime);
        if lifetime.has_served {
            self.failed_program = None;
        } else {
            self.failed_program.get_or_insert(program);
        }
    }
}
