//! What is: each slot's socket, its worker, and the worker's past. Pure: events come in as calls, the
//! time as a value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sq_shared::data_root::DirectoryId;

use super::backoff::{Backoff, Life};
use super::desired::Assignment;
use crate::settings::Absence;

/// Every slot, by port.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The pool's slots, and those on which the pool before this one still has a worker.
    pub slots: BTreeMap<u16, Slot>,
    /// The number of the program from which workers are started; it counts up with each new one.
    pub program: u32,
    /// The data root is not there: no tenant has a directory.
    pub is_root_lost: bool,
}

/// One slot.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    /// What is done about connections while there is no worker.
    pub attention: Attention,
    /// When the pool heard of the connection that waits.
    pub waiting_since: Option<Instant>,
    /// The worker that holds the slot's socket.
    pub worker: Option<Worker>,
    /// What the slot's latest tenant has been through.
    pub history: Option<History>,
    /// What was last seen of the directory of this assignment.
    pub place: Option<(Arc<Assignment>, PlaceState)>,
}

/// What is at the path of a tenant's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceState {
    /// A worker has not found its directory there: no other starts before that has been looked at.
    Looking,
    /// This directory; the tenant's, as far as the pool knows.
    There(DirectoryId),
    /// Nothing that is the tenant's.
    Gone,
}

/// What the pool does about a slot's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attention {
    /// They wait in the backlog, for a worker or for the next pool.
    #[default]
    Left,
    /// The pool will hear of the first one.
    Watched,
    /// The pool has heard of one.
    Waiting,
    /// No tenant: they are closed at once.
    Refused,
}

/// A worker from its start until its end has been seen.
#[derive(Debug, Clone)]
pub struct Worker {
    /// What it was started with, or sent since.
    pub assignment: Arc<Assignment>,
    /// Its process.
    pub pid: u32,
    /// Why it has no directory, and only says so.
    pub absence: Option<Absence>,
    /// When it was started, or taken over from the pool before.
    pub since: Instant,
    /// The number of the program that it is.
    pub program: u32,
    /// Since when a connection had waited for it; `None` once it has served.
    pub waited_since: Option<Instant>,
    /// Set once it has been told to stop.
    pub stop: Option<Stop>,
}

/// A worker's way out.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    /// When it was told.
    pub since: Instant,
    /// Why.
    pub reason: StopReason,
    /// It took too long.
    pub is_killed: bool,
}

/// Why a worker is told to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Its tenant has gone from the slot, or the pool goes.
    Unwanted,
    /// There is a new program.
    Replaced,
    /// The pool before this one had started it, and stops it.
    Inherited,
    /// Its directory is gone; or it stood in for one that is back.
    Displaced,
}

/// Why a worker is started. There is always a connection that waits; this is what was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartReason {
    /// The tenant slept.
    #[default]
    Connection,
    /// The last worker crashed.
    Crash,
    /// The last worker made way for a new program or a new pool.
    Upgrade,
}

/// What a tenant's workers on a slot have been through.
#[derive(Debug, Clone)]
pub struct History {
    /// Whose past it is.
    pub assignment: Arc<Assignment>,
    /// How often a worker was started.
    pub starts: u64,
    /// How often one ended as it should not, or could not be started.
    pub crashes: u64,
    /// When the next may start.
    pub backoff: Backoff,
    /// Why it will.
    pub next_start: StartReason,
    /// The program of the first worker that crashed before it had served; `None` once one has served since.
    pub failed_program: Option<u32>,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    /// It was told to.
    Stopped,
    /// It had nothing to do.
    Idle,
    /// Its directory was missing, or is not the one at its path any more.
    Displaced,
    /// None of these: it crashed, or ended before its time.
    Crashed,
}

impl Observed {
    /// Slots without workers.
    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        let slots = ports.into_iter().map(|port| (port, Slot::default())).collect();
        Self { slots, ..Self::default() }
    }

    /// A connection waits. News that comes late, when a worker is there or the slot is no longer
    /// watched, changes nothing: the slot is looked at again when it is watched again.
    pub fn connection_waits(&mut self, port: u16, now: Instant) {
        if let Some(slot) = self.slots.get_mut(&port)
            && slot.attention == Attention::Watched
        {
            slot.attention = Attention::Waiting;
            slot.waiting_since = Some(now);
        }
    }

    /// Connections are treated so from now on.
    pub fn attended(&mut self, port: u16, attention: Attention) {
        if let Some(slot) = self.slots.get_mut(&port) {
            slot.attention = attention;
        }
    }

    /// A worker was started; gives why.
    pub fn started(
        &mut self,
        port: u16,
        assignment: Arc<Assignment>,
        pid: u32,
        now: Instant,
    ) -> Option<StartReason> {
        let (program, absence) = (self.program, self.absence(port, &assignment));
        let slot = self.slots.get_mut(&port)?;
        let history = slot.history_of(&assignment);
        history.starts += 1;
        let reason = std::mem::take(&mut history.next_start);
        slot.attention = Attention::Left;
        let waited_since = slot.waiting_since.take();
        slot.worker =
            Some(Worker { assignment, pid, absence, since: now, program, waited_since, stop: None });
        Some(reason)
    }

    /// The pool before this one has a worker there, and is stopping it.
    pub fn inherited(&mut self, port: u16, assignment: Arc<Assignment>, pid: u32, now: Instant) {
        let stop = Some(Stop { since: now, reason: StopReason::Inherited, is_killed: false });
        let (program, absence, waited_since) = (self.program, None, None);
        let worker = Worker { assignment, pid, absence, since: now, program, waited_since, stop };
        self.slots.entry(port).or_default().worker = Some(worker);
    }

    /// The worker has applied its first command; gives how long a connection had waited for that.
    pub fn served(&mut self, port: u16, now: Instant) -> Option<Duration> {
        let slot = self.slots.get_mut(&port)?;
        let worker = slot.worker.as_mut()?;
        if let Some(history) = &mut slot.history {
            history.failed_program = None;
        }
        let since = worker.waited_since.take()?;
        Some(now.saturating_duration_since(since))
    }

    /// A worker could not be started, which is as bad as a crash.
    pub fn start_failed(&mut self, port: u16, assignment: &Arc<Assignment>, now: Instant) {
        let program = self.program;
        if let Some(slot) = self.slots.get_mut(&port) {
            slot.history_of(assignment).crashed(now, Life::NONE, program);
            slot.attention = Attention::Left;
        }
    }

    /// The worker was sent its new settings.
    pub fn configured(&mut self, port: u16, assignment: Arc<Assignment>) {
        if let Some(worker) = self.worker_mut(port) {
            worker.assignment = assignment;
        }
    }

    /// The worker was told to stop.
    pub fn stopping(&mut self, port: u16, reason: StopReason, now: Instant) {
        if let Some(worker) = self.worker_mut(port) {
            worker.stop = Some(Stop { since: now, reason, is_killed: false });
        }
    }

    /// The worker was killed, because it took too long.
    pub fn killed(&mut self, port: u16) {
        if let Some(stop) = self.worker_mut(port).and_then(|worker| worker.stop.as_mut()) {
            stop.is_killed = true;
        }
    }

    /// The worker is gone, with exit code 0 or not, and had served or not; `None` when there was none.
    ///
    /// Exit code 0 before the idle time-out is over is not an idle end: a worker that does nothing but
    /// that must be held back as one that crashes.
    pub fn ended(
        &mut self,
        port: u16,
        is_success: bool,
        has_served: bool,
        now: Instant,
    ) -> Option<(Worker, ExitKind)> {
        let slot = self.slots.get_mut(&port)?;
        let worker = slot.worker.take()?;
        slot.attention = Attention::Left;
        let life = Life { lasted: now.saturating_duration_since(worker.since), has_served };
        let history = slot.history_of(&worker.assignment);
        let kind = if let Some(stop) = worker.stop {
            history.next_start = stop.reason.next_start();
            ExitKind::Stopped
        } else if is_success && life.lasted >= worker.assignment.settings.idle_timeout() {
            history.backoff.reset();
            history.failed_program = None;
            ExitKind::Idle
        } else {
            history.crashed(now, life, worker.program);
            ExitKind::Crashed
        };
        Some((worker, kind))
    }

    /// The worker is gone, because its directory was missing or is not the one at its path. The next one is held back as
    /// after a crash: should that come again at once, it must not keep the pool busy.
    pub fn displaced(&mut self, port: u16, has_served: bool, now: Instant) -> Option<(Worker, ExitKind)> {
        let slot = self.slots.get_mut(&port)?;
        let worker = slot.worker.take()?;
        slot.attention = Attention::Left;
        let life = Life { lasted: now.saturating_duration_since(worker.since), has_served };
        slot.history_of(&worker.assignment).backoff.crashed(now, life);
        slot.place = Some((Arc::clone(&worker.assignment), PlaceState::Looking));
        Some((worker, ExitKind::Displaced))
    }

    /// Why there is no directory for a worker of this assignment; `None` when there is one, as far as is known.
    pub fn absence(&self, port: u16, assignment: &Assignment) -> Option<Absence> {
        if self.is_root_lost {
            return Some(Absence::DataRoot);
        }
        let place = self.slots.get(&port)?.place_of(assignment)?;
        (place == PlaceState::Gone).then_some(Absence::Directory)
    }

    /// How many workers are on their way out for this reason.
    pub fn stopping_count(&self, reason: StopReason) -> usize {
        let stops = self.slots.values().filter_map(|slot| slot.worker.as_ref()?.stop);
        stops.filter(|stop| stop.reason == reason).count()
    }

    /// How many workers are another program than what is started now, and are not on their way out.
    pub fn outdated_count(&self) -> usize {
        let workers = self.slots.values().filter_map(|slot| slot.worker.as_ref());
        workers.filter(|worker| worker.stop.is_none() && worker.program != self.program).count()
    }

    /// How many workers there are, stopping ones too.
    pub fn worker_count(&self) -> usize {
        self.slots.values().filter(|slot| slot.worker.is_some()).count()
    }

    fn worker_mut(&mut self, port: u16) -> Option<&mut Worker> {
        self.slots.get_mut(&port)?.worker.as_mut()
    }
}

impl StopReason {
    /// Why the next worker is started.
    fn next_start(self) -> StartReason {
        match self {
            Self::Unwanted | Self::Displaced => StartReason::Connection,
            Self::Replaced | Self::Inherited => StartReason::Upgrade,
        }
    }
}

impl StartReason {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Connection, Self::Crash, Self::Upgrade];

    /// As the metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Crash => "crash",
            Self::Upgrade => "upgrade",
        }
    }
}

impl Slot {
    /// Until when the crashes of this tenant's workers hold the next one back.
    pub fn holds_until(&self, assignment: &Assignment, now: Instant) -> Option<Instant> {
        let history =
            self.history.as_ref().filter(|history| history.assignment.is_same_worker(assignment))?;
        history.backoff.holds_until(now)
    }

    /// What was last seen of this tenant's directory.
    pub fn place_of(&self, assignment: &Assignment) -> Option<PlaceState> {
        let (seen_of, place) = self.place.as_ref()?;
        seen_of.is_same_worker(assignment).then_some(*place)
    }

    /// The past of this tenant; another tenant's is forgotten.
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
    fn crashed(&mut self, now: Instant, life: Life, program: u32) {
        self.crashes += 1;
        self.next_start = StartReason::Crash;
        self.backoff.crashed(now, life);
        if life.has_served {
            self.failed_program = None;
        } else {
            self.failed_program.get_or_insert(program);
        }
    }
}
