//! What is: each slot's socket, its worker, and the worker's past. Pure: events come in as calls, the
//! time as a value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::backoff::{Backoff, Life};
use super::desired::Assignment;

/// Every slot, by port.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The pool's slots; none is ever added or taken away.
    pub slots: BTreeMap<u16, Slot>,
}

/// One slot.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    /// What is done about connections while there is no worker.
    pub attention: Attention,
    /// The worker that holds the slot's socket.
    pub worker: Option<Worker>,
    /// What the slot's latest tenant has been through.
    pub history: Option<History>,
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
    /// What it was started with, or told since.
    pub assignment: Arc<Assignment>,
    /// Its process.
    pub pid: u32,
    /// When it was started.
    pub since: Instant,
    /// Set once it has been told to stop.
    pub stop: Option<Stop>,
}

/// A worker's way out.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    /// When it was told.
    pub since: Instant,
    /// It took too long.
    pub is_killed: bool,
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
}

/// Why a worker is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It was told to.
    Stopped,
    /// It had nothing to do.
    Idle,
    /// Neither: it crashed, or ended before its time.
    Crashed,
}

impl Observed {
    /// Slots without workers.
    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        Self { slots: ports.into_iter().map(|port| (port, Slot::default())).collect() }
    }

    /// A connection waits. News that comes late, when a worker is there or the slot is no longer
    /// watched, changes nothing: the slot is looked at again when it is watched again.
    pub fn connection_waits(&mut self, port: u16) {
        if let Some(slot) = self.slots.get_mut(&port)
            && slot.attention == Attention::Watched
        {
            slot.attention = Attention::Waiting;
        }
    }

    /// Connections are treated so from now on.
    pub fn attended(&mut self, port: u16, attention: Attention) {
        if let Some(slot) = self.slots.get_mut(&port) {
            slot.attention = attention;
        }
    }

    /// A worker was started.
    pub fn started(&mut self, port: u16, assignment: Arc<Assignment>, pid: u32, now: Instant) {
        if let Some(slot) = self.slots.get_mut(&port) {
            slot.history_of(&assignment).starts += 1;
            slot.attention = Attention::Left;
            slot.worker = Some(Worker { assignment, pid, since: now, stop: None });
        }
    }

    /// A worker could not be started, which is as bad as a crash.
    pub fn start_failed(&mut self, port: u16, assignment: &Arc<Assignment>, now: Instant) {
        if let Some(slot) = self.slots.get_mut(&port) {
            slot.history_of(assignment).crashed(now, Life::NONE);
            slot.attention = Attention::Left;
        }
    }

    /// The worker was told its new settings.
    pub fn told(&mut self, port: u16, assignment: Arc<Assignment>) {
        if let Some(worker) = self.worker_mut(port) {
            worker.assignment = assignment;
        }
    }

    /// The worker was told to stop.
    pub fn stopping(&mut self, port: u16, now: Instant) {
        if let Some(worker) = self.worker_mut(port) {
            worker.stop = Some(Stop { since: now, is_killed: false });
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
    ) -> Option<(Worker, Departure)> {
        let slot = self.slots.get_mut(&port)?;
        let worker = slot.worker.take()?;
        slot.attention = Attention::Left;
        let life = Life { lasted: now.saturating_duration_since(worker.since), has_served };
        let history = slot.history_of(&worker.assignment);
        let departure = if worker.stop.is_some() {
            Departure::Stopped
        } else if is_success && life.lasted >= worker.assignment.settings.idle_timeout() {
            history.backoff.reset();
            Departure::Idle
        } else {
            history.crashed(now, life);
            Departure::Crashed
        };
        Some((worker, departure))
    }

    /// How many workers there are, stopping ones too.
    pub fn worker_count(&self) -> usize {
        self.slots.values().filter(|slot| slot.worker.is_some()).count()
    }

    fn worker_mut(&mut self, port: u16) -> Option<&mut Worker> {
        self.slots.get_mut(&port)?.worker.as_mut()
    }
}

impl Slot {
    /// Until when the crashes of this tenant's workers hold the next one back.
    pub fn holds_until(&self, assignment: &Assignment, now: Instant) -> Option<Instant> {
        let history =
            self.history.as_ref().filter(|history| history.assignment.is_same_worker(assignment))?;
        history.backoff.holds_until(now)
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
        }))
    }
}

impl History {
    fn crashed(&mut self, now: Instant, life: Life) {
        self.crashes += 1;
        self.backoff.crashed(now, life);
    }
}
