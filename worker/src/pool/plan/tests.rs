//! Simulates connections, workers and registry changes in thousands of random orders. The simulated world tracks the
//! processes itself, and checks the plan against them after every step.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use sq_tests::random::Random;

use super::super::backoff::{LONGEST_DELAY, Lifetime};
use super::super::desired::{Assignment, Desired};
use super::super::observed::{ExitKind, Observed, SocketMode, StopReason};
use super::{Action, next_wakeup, plan, run_to_fixpoint};
use crate::settings::{MissingData, WorkerSettings};

mod cases;
mod losses;

const PORTS: std::ops::Range<u16> = 1341..1346;
const TENANTS: usize = 6;
const DIRECTORIES: usize = 7;
const STEPS: usize = 300;
const SEEDS: u64 = 2_000;
const GRACE: Duration = Duration::from_secs(35);
const IDLE: Duration = Duration::from_secs(3);

/// The longest that a connection may wait: for a worker to be killed, for the back-off, and for late events.
const LONGEST_WAIT: Duration = Duration::from_secs(35 + 10 + 15);

/// Far more than the back-offs and stops of all slots need in the longest step.
const MOST_WAKEUPS: usize = 100;

fn random_port(random: &mut Random) -> u16 {
    random.below(PORTS.end - PORTS.start) + PORTS.start
}

/// A process as the system sees it.
struct Running {
    assignment: Arc<Assignment>,
    missing_data: Option<MissingData>,
    since: Instant,
    /// It was told to stop.
    is_stopping: bool,
    /// It ignores that.
    is_deaf: bool,
    /// It was told to stop because of a new program.
    is_replaced: bool,
    /// The number of its program.
    program: u32,
    unwanted_since: Option<Instant>,
    has_served: bool,
}

/// An event on its way to the pool.
enum Event {
    ConnectionWaits(u16),
    Served(u16),
    /// With its exit code, unless it was killed, and whether it had served.
    Ended(u16, Option<i32>, bool),
}

/// How a worker reacts to a connection.
#[derive(Clone, Copy, PartialEq)]
enum Health {
    Healthy,
    Crashing,
    CannotStart,
}

struct World {
    random: Random,
    now: Instant,
    desired: Desired,
    observed: Observed,
    processes: BTreeMap<u16, Running>,
    waiting_since: BTreeMap<u16, Instant>,
    socket_mode: BTreeMap<u16, SocketMode>,
    health: BTreeMap<u16, Health>,
    events: VecDeque<Event>,
    latest_failures: BTreeMap<u16, (Arc<Assignment>, Vec<Instant>)>,
    /// The first program whose worker crashed before it served the tenant on this port; removed once one has served.
    failed: BTreeMap<u16, (Arc<Assignment>, u32)>,
}

fn assignment(tenant: usize, directory: usize, quota: u64) -> Arc<Assignment> {
    // Directory 0 contains directory 1, so the one may be given away only when the other is free.
    let data_dir = if directory == 1 { "/data/d0/inner".to_owned() } else { format!("/data/d{directory}") };
    let settings = WorkerSettings {
        keys: Vec::new(),
        quota_bytes: Some(quota),
        phexts: None,
        coordinate: None,
        memory_bytes: 1,
        body_bytes: None,
        idle_timeout_ms: u64::try_from(IDLE.as_millis()).unwrap(),
        drain_ms: 1,
        directory: None,
    };
    Arc::new(Assignment {
        tenant: format!("t{tenant}").parse().unwrap(),
        data_dir: data_dir.into(),
        settings,
    })
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            random: Random::new(seed),
            now,
            desired: Desired { assignments: BTreeMap::new(), stop_grace: GRACE, is_closing: false },
            observed: Observed::new(PORTS),
            processes: BTreeMap::new(),
            waiting_since: BTreeMap::new(),
            socket_mode: PORTS.map(|port| (port, SocketMode::Unwatched)).collect(),
            health: PORTS.map(|port| (port, Health::Healthy)).collect(),
            events: VecDeque::new(),
            latest_failures: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Changes anything but that no directory is another's or inside it.
    fn change_registry(&mut self) {
        let (tenants, directories) = (self.random.shuffled(TENANTS), self.random.shuffled(DIRECTORIES));
        let keep = self.random.one_in(2);
        let mut assignments: BTreeMap<u16, Arc<Assignment>> = BTreeMap::new();
        for ((port, tenant), directory) in PORTS.zip(tenants).zip(directories) {
            let quota = self.random.below(3);
            let directory = if keep { 2 + tenant % (DIRECTORIES - 2) } else { directory };
            let new = assignment(tenant, directory, quota);
            let is_free = !assignments.values().any(|other| other.shares_directory(&new));
            if is_free && !self.random.one_in(4) {
                assignments.insert(port, new);
            }
        }
        self.desired.assignments = assignments;
        // A connection may now have to wait for another worker's exit first.
        self.waiting_since.values_mut().for_each(|since| *since = self.now);
    }

    fn happen(&mut self) {
        match self.random.below(13) {
            0..=3 => {
                let port = random_port(&mut self.random);
                self.waiting_since.entry(port).or_insert(self.now);
            }
            4 => {
                let port = random_port(&mut self.random);
                self.end(port, None);
            }
            5 => {
                let port = random_port(&mut self.random);
                if self.processes.get(&port).is_some_and(|process| self.now - process.since >= IDLE) {
                    self.end(port, Some(0));
                }
            }
            6 => self.change_registry(),
            7 => {
                let health = match self.random.below(4) {
                    0 => Health::Crashing,
                    1 => Health::CannotStart,
                    _ => Health::Healthy,
                };
                let port = random_port(&mut self.random);
                self.health.insert(port, health);
            }
            8 => self.pass_up_to(20_000),
            9 => self.change_program(),
            _ => self.pass_up_to(300),
        }
        self.live();
        self.deliver();
    }

    fn change_program(&mut self) {
        self.observed.program += 1;
        // A connection may now have to wait for the exit of a worker that is replaced.
        self.waiting_since.values_mut().for_each(|since| *since = self.now);
    }

    /// Time passes. Events are late only by a short time: before a long one, all of them arrive.
    fn pass_up_to(&mut self, limit_ms: usize) {
        let duration = Duration::from_millis(u64::try_from(self.random.below(limit_ms)).unwrap());
        if duration > Duration::from_secs(1) {
            self.deliver_all();
        }
        self.pass(duration);
    }

    /// Time passes; the pool is woken whenever it asked to be.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut wakeups = 0;
        while let Some(at) = next_wakeup(&self.desired, &self.observed, self.now).filter(|at| *at <= end) {
            wakeups += 1;
            assert!(wakeups <= MOST_WAKEUPS, "woken for nothing");
            self.now = self.now.max(at);
            self.act();
            self.deliver_all();
        }
        self.now = end;
    }

    fn deliver_all(&mut self) {
        self.live();
        while !self.events.is_empty() {
            self.deliver();
            self.live();
        }
    }

    /// Workers accept their connections, or crash; stopping ones exit sooner or later.
    fn live(&mut self) {
        for port in PORTS {
            let Some(process) = self.processes.get_mut(&port) else {
                // The kernel reports a connection once, and only while the slot is watched.
                if self.socket_mode[&port] == SocketMode::Watched && self.waiting_since.contains_key(&port) {
                    self.socket_mode.insert(port, SocketMode::ConnectionWaits);
                    self.events.push_back(Event::ConnectionWaits(port));
                }
                if self.socket_mode[&port] == SocketMode::Refusing {
                    self.waiting_since.remove(&port);
                }
                continue;
            };
            if process.is_stopping {
                if !process.is_deaf && self.random.one_in(2) {
                    self.end(port, Some(0));
                }
            } else if self.health[&port] == Health::Crashing {
                self.end(port, None);
            } else if self.waiting_since.remove(&port).is_some() {
                if !process.has_served {
                    self.events.push_back(Event::Served(port));
                }
                process.has_served = true;
            }
        }
    }

    fn end(&mut self, port: u16, code: Option<i32>) {
        if let Some(process) = self.processes.remove(&port) {
            self.events.push_back(Event::Ended(port, code, process.has_served));
        }
    }

    /// One event reaches the pool, which then plans and acts.
    fn deliver(&mut self) {
        match self.events.pop_front() {
            Some(Event::ConnectionWaits(port)) => self.observed.connection_waits(port, self.now),
            Some(Event::Served(port)) => {
                self.failed.remove(&port);
                self.observed.served(port, self.now);
            }
            Some(Event::Ended(port, code, has_served)) => {
                let (worker, exit) = self.observed.ended(port, code, has_served, self.now).unwrap();
                let lifetime = Lifetime { lasted: self.now - worker.since, has_served };
                match exit {
                    ExitKind::Crashed => {
                        self.note_failure(port, &worker.assignment, lifetime, worker.program)
                    }
                    ExitKind::Idle => {
                        self.latest_failures.remove(&port);
                        self.failed.remove(&port);
                    }
                    ExitKind::Stopped | ExitKind::Displaced => {}
                }
            }
            None => {}
        }
        self.act();
    }

    fn is_program_failed(&self) -> bool {
        self.desired.assignments.iter().any(|(port, wanted)| {
            let failed = self.failed.get(port).filter(|(owner, _)| owner.is_same_worker(wanted));
            failed.is_some_and(|(_, program)| *program == self.observed.program)
        })
    }

    fn note_failure(&mut self, port: u16, assignment: &Arc<Assignment>, lifetime: Lifetime, program: u32) {
        if !lifetime.has_served {
            let first = self.failed.entry(port).or_insert_with(|| (Arc::clone(assignment), program));
            if !first.0.is_same_worker(assignment) {
                *first = (Arc::clone(assignment), program);
            }
        }
        let (owner, failures) =
            self.latest_failures.entry(port).or_insert_with(|| (Arc::clone(assignment), Vec::new()));
        if !owner.is_same_worker(assignment)
            || lifetime.has_served
            || lifetime.lasted >= Duration::from_secs(10)
        {
            failures.clear();
        }
        *owner = Arc::clone(assignment);
        failures.push(self.now);
    }

    /// The pool's own loop.
    fn act(&mut self) {
        let planned = |world: &Self| {
            let actions = plan(&world.desired, &world.observed, world.now);
            assert!(actions.len() <= PORTS.len(), "up to one action per slot: {actions:?}");
            let replaces =
                actions.iter().any(|action| matches!(action, Action::Stop(_, StopReason::NewProgram)));
            assert!(!replaces || !world.is_program_failed(), "replaced by a program that failed");
            actions
        };
        let perform = async |world: &mut Self, action| world.perform(action);
        // Nothing in this world is asynchronous.
        let context = &mut Context::from_waker(Waker::noop());
        let has_converged = pin!(run_to_fixpoint(self, planned, perform)).poll(context);
        assert_eq!(has_converged, Poll::Ready(true), "the plan did not converge");
        self.check();
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::SetSocketMode(port, socket_mode) => {
                self.socket_mode.insert(port, socket_mode);
                self.observed.socket_mode_set(port, socket_mode);
            }
            Action::Start(port, assignment) => self.start(port, assignment),
            Action::SendSettings(port, assignment) => {
                if let Some(process) = self.processes.get_mut(&port) {
                    process.assignment = Arc::clone(&assignment);
                }
                self.observed.settings_sent(port, assignment);
            }
            Action::Stop(port, StopReason::DataChanged) => self.kill_for_data(port),
            Action::Stop(port, reason) => self.stop(port, reason),
            Action::Kill(port) => {
                self.end(port, None);
                self.observed.killed(port);
            }
        }
    }

    fn stop(&mut self, port: u16, reason: StopReason) {
        let is_deaf = self.random.one_in(5);
        if let Some(process) = self.processes.get_mut(&port) {
            assert!(!process.is_stopping, "told to stop twice");
            (process.is_stopping, process.is_deaf) = (true, is_deaf);
            process.is_replaced = reason == StopReason::NewProgram;
            let is_outdated = process.program != self.observed.program;
            assert!(is_outdated || !process.is_replaced, "replaced by the same program");
        }
        self.observed.stopping(port, reason, self.now);
    }

    fn start(&mut self, port: u16, assignment: Arc<Assignment>) {
        assert!(!self.processes.contains_key(&port), "two workers on slot {port}");
        let taken = self.processes.values().find(|other| other.assignment.shares_directory(&assignment));
        assert!(taken.is_none(), "two workers on directory {}", assignment.data_dir.display());
        self.check_backoff(port, &assignment);
        if self.health[&port] == Health::CannotStart {
            self.observed.start_failed(port, &assignment, self.now);
            self.socket_mode.insert(port, SocketMode::Unwatched);
            return self.note_failure(port, &assignment, Lifetime::NONE, self.observed.program);
        }
        if self.latest_failures.get(&port).is_some_and(|(owner, _)| !owner.is_same_worker(&assignment)) {
            self.latest_failures.remove(&port);
        }
        if self.failed.get(&port).is_some_and(|(owner, _)| !owner.is_same_worker(&assignment)) {
            self.failed.remove(&port);
        }
        self.socket_mode.insert(port, SocketMode::Unwatched);
        let process = Running {
            assignment: Arc::clone(&assignment),
            missing_data: self.observed.missing_data(port, &assignment),
            since: self.now,
            is_stopping: false,
            is_deaf: false,
            is_replaced: false,
            program: self.observed.program,
            unwanted_since: None,
            has_served: false,
        };
        self.processes.insert(port, process);
        self.observed.started(port, assignment, u32::from(port), self.now);
    }

    /// Checks that the delay after this many failures in a row has passed.
    fn check_backoff(&self, port: u16, assignment: &Assignment) {
        let Some((owner, failures)) = self.latest_failures.get(&port) else { return };
        if owner.is_same_worker(assignment)
            && let Some(latest) = failures.last()
        {
            let delays_ms = [0, 0, 100, 200, 400, 800, 1_600, 3_200, 6_400];
            let delay = delays_ms.get(failures.len()).map_or(LONGEST_DELAY, |ms| Duration::from_millis(*ms));
            assert!(
                self.now >= *latest + delay,
                "started within the back-off of {} failures",
                failures.len()
            );
        }
    }

    fn check(&mut self) {
        let late = Duration::from_millis(1);
        let replaced = self.processes.values().filter(|process| process.is_replaced).count();
        assert!(replaced <= 1, "{replaced} workers are replaced at once");
        for (port, process) in &mut self.processes {
            let wanted =
                self.desired.assignments.get(port).is_some_and(|a| a.is_same_worker(&process.assignment));
            if wanted && !process.is_stopping {
                process.unwanted_since = None;
            } else {
                let since = *process.unwanted_since.get_or_insert(self.now);
                assert!(self.now <= since + GRACE + late, "an unwanted worker on {port} outlived its stop");
            }
        }
        for (port, since) in &mut self.waiting_since {
            let is_sick = self.health[port] != Health::Healthy;
            if is_sick || !self.desired.assignments.contains_key(port) {
                // No worker can accept it; its wait starts when one can.
                *since = self.now;
            }
            assert!(self.now <= *since + LONGEST_WAIT, "a connection on {port} waits too long");
        }
    }

    /// With healthy workers, a connection on every slot and no other changes, the world becomes as desired.
    fn settle(&mut self) {
        for port in PORTS {
            self.waiting_since.entry(port).or_insert(self.now);
        }
        self.health.values_mut().for_each(|health| *health = Health::Healthy);
        for _ in 0..200 {
            self.pass(Duration::from_secs(1));
            self.deliver_all();
        }
        assert!(
            self.waiting_since.keys().all(|port| self.socket_mode[port] == SocketMode::Unwatched),
            "unserved"
        );
        for (port, process) in &self.processes {
            assert_eq!(self.desired.assignments.get(port), Some(&process.assignment), "not what is desired");
            assert_eq!(process.program, self.observed.program, "not the newest program");
        }
    }
}

#[test]
fn every_order_of_events_keeps_the_invariants() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.change_registry();
        for _ in 0..STEPS {
            world.happen();
        }
        world.settle();
        assert!(world.waiting_since.is_empty(), "seed {seed}: a connection was never served");

        world.desired.close(Duration::from_secs(30));
        world.act();
        world.settle();
        assert_eq!(world.observed.worker_count(), 0, "seed {seed}: a worker was left behind");
        let waits = SocketMode::Unwatched;
        assert!(
            world.socket_mode.values().all(|socket_mode| *socket_mode == waits),
            "connections wait for the next pool"
        );
    }
}
