//! The nemesis: one fault after the other, in an order that its seed fixes. Some last for a while, and others happen
//! meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;
use sq_tests::random::Random;
use sq_tests::{process, wait};

use crate::clients::Board;
use crate::system::{KEYS, Standing, System, TENANTS};

/// The most calls between two faults, and while one lasts.
const MOST_CALLS_BETWEEN: usize = 60;
const MOST_CALLS_MEANWHILE: usize = 120;

/// How long the calls between two faults are waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// The gateway sends a request five times, within 650 ms.
const KILLS_IN_A_ROW: usize = 20;
const PAUSE_IN_A_ROW: Duration = Duration::from_millis(40);

/// How long a condition lasts: now and then longer than a request waits for its answer.
const LASTS_MS: [u64; 7] = [5, 10, 20, 50, 100, 200, 1200];

/// How far the clock of workers is ahead of the machine's: steps by less and by more than remembered keys live.
const CLOCKS_S: [i64; 7] = [0, 4 * 60, 15 * 60, 3 * 3600, 40 * 3600, -20 * 60, -40 * 3600];

/// What happens at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    KillWorker,
    /// Until the gateway gives up to send a request again.
    KillWorkersInARow,
    KillPool,
    KillGateway,
    UpgradeWorkers,
    UpgradePool,
    UpgradeGateway,
    ReloadConfig,
    StepClock,
}

/// What lasts for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    PauseWorker,
    PausePool,
    PauseGateway,
    FullDisk,
    FrozenDisk,
    SuspendTenant,
    RevokeKey,
}

/// The faults, and how often each comes among its kind.
const EVENTS: [(Event, usize); 9] = [
    (Event::KillWorker, 6),
    (Event::KillWorkersInARow, 2),
    (Event::KillPool, 2),
    (Event::KillGateway, 3),
    (Event::UpgradeWorkers, 1),
    (Event::UpgradePool, 1),
    (Event::UpgradeGateway, 2),
    (Event::ReloadConfig, 2),
    (Event::StepClock, 4),
];
const CONDITIONS: [(Condition, usize); 7] = [
    (Condition::PauseWorker, 2),
    (Condition::PausePool, 1),
    (Condition::PauseGateway, 2),
    (Condition::FullDisk, 3),
    (Condition::FrozenDisk, 2),
    (Condition::SuspendTenant, 2),
    (Condition::RevokeKey, 2),
];

/// Ends a condition when it is dropped.
struct Undo<'a>(Box<dyn FnMut() + 'a>);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Works on a system while clients use it.
pub(crate) struct Nemesis<'a> {
    system: &'a mut System,
    board: &'a Board,
    random: Random,
    /// How often each fault was made.
    counts: BTreeMap<String, usize>,
}

impl<'a> Nemesis<'a> {
    pub(crate) fn new(system: &'a mut System, board: &'a Board, seed: u64) -> Self {
        Self { system, board, random: Random::new(seed), counts: BTreeMap::new() }
    }

    /// Makes faults until the clients are done. Gives how many of each.
    pub(crate) fn run(mut self) -> BTreeMap<String, usize> {
        let (events, conditions) = (self.possible_events(), self.possible_conditions());
        while !self.board.is_over() {
            // The fault finds the clients at work.
            self.board.grant(MOST_CALLS_BETWEEN);
            let enough = self.board.calls() + self.random.below(MOST_CALLS_BETWEEN);
            wait::within(LONGEST_WAIT, || {
                (self.board.is_over() || self.board.calls() >= enough).then_some(())
            });
            self.board.grant(MOST_CALLS_MEANWHILE);
            if self.random.below(2) == 0 {
                let event = self.pick(&events);
                self.happen(event);
            } else {
                let condition = self.pick(&conditions);
                self.hold(condition);
            }
        }
        self.counts
    }

    fn possible_events(&self) -> Vec<(Event, usize)> {
        let has_clock = self.system.has_clock();
        EVENTS.into_iter().filter(|(event, _)| has_clock || *event != Event::StepClock).collect()
    }

    fn possible_conditions(&self) -> Vec<(Condition, usize)> {
        let needs_disk = |condition| matches!(condition, Condition::FullDisk | Condition::FrozenDisk);
        let has_disk = self.system.disk.is_own();
        CONDITIONS.into_iter().filter(|(condition, _)| has_disk || !needs_disk(*condition)).collect()
    }

    fn pick<T: Copy>(&mut self, choices: &[(T, usize)]) -> T {
        let all: Vec<T> = choices.iter().flat_map(|(fault, share)| vec![*fault; *share]).collect();
        *self.random.pick(&all)
    }

    fn count(&mut self, fault: String) {
        *self.counts.entry(fault).or_default() += 1;
    }

    fn happen(&mut self, event: Event) {
        self.count(format!("{event:?}"));
        let tenant = *self.random.pick(&TENANTS);
        match event {
            Event::KillWorker => self.system.kill_worker(tenant),
            Event::KillWorkersInARow => {
                for _ in 0..KILLS_IN_A_ROW {
                    self.system.kill_worker(tenant);
                    wait::pass(PAUSE_IN_A_ROW);
                }
            }
            Event::KillPool => self.system.kill_pool(),
            Event::KillGateway => self.system.kill_gateway(),
            Event::UpgradeWorkers => self.system.upgrade_workers(),
            Event::UpgradePool => self.system.upgrade_pool(),
            Event::UpgradeGateway => self.system.upgrade_gateway(),
            Event::ReloadConfig => self.system.reload_config(),
            Event::StepClock => {
                self.system.set_clock(tenant, *self.random.pick(&CLOCKS_S));
                // A step under a request that is sent again, or under a worker that lives.
                if self.random.below(4) > 0 {
                    self.system.kill_worker(tenant);
                }
            }
        }
    }

    /// Lets a condition last; in half of the cases workers are killed meanwhile.
    fn hold(&mut self, condition: Condition) {
        self.count(format!("{condition:?}"));
        let tenant = *self.random.pick(&TENANTS);
        let key = self.random.below(KEYS);
        let kills = *self.random.pick(&[0, 0, 1, 2]);
        let part = Duration::from_millis(*self.random.pick(&LASTS_MS)) / (kills + 1);
        let undo = begin(self.system, condition, tenant, key);
        wait::pass(part);
        for _ in 0..kills {
            self.system.kill_worker(tenant);
            wait::pass(part);
        }
        drop(undo);
        if kills > 0 {
            self.count(format!("{:?} during {condition:?}", Event::KillWorker));
        }
    }
}

fn begin<'a>(system: &'a System, condition: Condition, tenant: &'static str, key: usize) -> Undo<'a> {
    let pause = |pid: Option<u32>| -> Undo<'a> {
        pid.into_iter().for_each(|pid| process::signal(pid, Signal::STOP));
        Undo(Box::new(move || pid.into_iter().for_each(|pid| process::signal(pid, Signal::CONT))))
    };
    let registry = |standing: Standing| -> Undo<'a> {
        system.write_registry(|name| if name == tenant { standing } else { Standing::default() });
        Undo(Box::new(|| system.write_registry(|_| Standing::default())))
    };
    match condition {
        Condition::PauseWorker => pause(system.worker_pid(tenant)),
        Condition::PausePool => pause(Some(system.pool_pid())),
        Condition::PauseGateway => pause(Some(system.gateway_pid())),
        Condition::FullDisk => {
            let mut full = Some(system.disk.fill());
            Undo(Box::new(move || drop(full.take())))
        }
        Condition::FrozenDisk => {
            let mut frozen = Some(system.disk.freeze());
            Undo(Box::new(move || drop(frozen.take())))
        }
        Condition::SuspendTenant => registry(Standing { is_suspended: true, revoked: None }),
        Condition::RevokeKey => registry(Standing { is_suspended: false, revoked: Some(key) }),
    }
}
