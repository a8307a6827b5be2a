//! The same world, in which the data root and the directories of tenants go and come back.

use std::sync::Arc;

use super::super::super::observed::{PlaceState, StopReason};
use super::{STEPS, World};
use crate::settings::MissingData;

const SEEDS: u64 = 1_000;

impl World {
    /// A worker is killed, because what it is told to serve has gone or is back.
    pub(super) fn displace(&mut self, port: u16) {
        let wanted = &self.desired.assignments[&port];
        let absence = self.observed.absence(port, wanted);
        // It may have ended, and the pool not have heard of it.
        if let Some(process) = self.processes.get_mut(&port) {
            assert!(!process.is_stopping, "displaced twice");
            assert_ne!(process.absence, absence, "displaced for nothing");
            (process.is_stopping, process.is_deaf) = (true, false);
        }
        self.observed.stopping(port, StopReason::Displaced, self.now);
    }

    fn lose_or_find(&mut self) {
        if self.random.once_in(4) {
            self.observed.is_root_lost = !self.observed.is_root_lost;
        } else {
            let (port, is_gone) = (self.random.port(), self.random.once_in(2));
            let wanted = self.desired.assignments.get(&port);
            let place = wanted.filter(|_| is_gone).map(|wanted| (Arc::clone(wanted), PlaceState::Gone));
            self.observed.slots.get_mut(&port).unwrap().place = place;
        }
        // A connection may now have to wait for a worker's end.
        self.waiting_since.values_mut().for_each(|since| *since = self.now);
        self.act();
    }

    fn assert_each_says_what_is_so(&self) {
        for (port, process) in self.processes.iter().filter(|(_, process)| !process.is_stopping) {
            if let Some(wanted) = self.desired.assignments.get(port) {
                assert_eq!(process.absence, self.observed.absence(*port, wanted), "on {port}");
            }
        }
    }
}

#[test]
fn no_worker_serves_what_is_gone_and_each_is_served_when_it_is_back() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.change_registry();
        for _ in 0..STEPS {
            world.happen();
            if world.random.once_in(6) {
                world.lose_or_find();
            }
            world.assert_each_says_what_is_so();
        }
        world.observed.is_root_lost = true;
        world.act();
        world.settle();
        assert!(
            world.waiting_since.is_empty(),
            "seed {seed}: a connection was not told that the root is lost"
        );
        assert!(world.processes.values().all(|process| process.absence == Some(MissingData::DataRoot)));
        world.observed.is_root_lost = false;
        world.observed.slots.values_mut().for_each(|slot| slot.place = None);
        world.act();
        world.settle();
        assert!(world.waiting_since.is_empty(), "seed {seed}: a connection was never served");
        assert!(world.processes.values().all(|process| process.absence.is_none()), "seed {seed}");
    }
}
