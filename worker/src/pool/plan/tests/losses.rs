//! The same world, in which the data root and tenants' directories go missing and come back.

use std::sync::Arc;

use super::super::super::observed::{DirectoryState, StopReason};
use super::{STEPS, World, random_port};
use crate::settings::MissingData;

const SEEDS: u64 = 1_000;

impl World {
    /// Kills a worker because its data went missing or is back.
    pub(super) fn kill_for_data(&mut self, port: u16) {
        let wanted = &self.desired.assignments[&port];
        let missing_data = self.observed.missing_data(port, wanted);
        // It may have exited without the pool's knowing yet.
        if let Some(process) = self.processes.get_mut(&port) {
            assert!(!process.is_stopping, "stopped twice");
            assert_ne!(process.missing_data, missing_data, "stopped although nothing changed");
            (process.is_stopping, process.is_deaf) = (true, false);
        }
        self.observed.stopping(port, StopReason::DataChanged, self.now);
    }

    fn lose_or_restore(&mut self) {
        if self.random.one_in(4) {
            self.observed.is_data_root_missing = !self.observed.is_data_root_missing;
        } else {
            let (port, is_gone) = (random_port(&mut self.random), self.random.one_in(2));
            let wanted = self.desired.assignments.get(&port);
            let directory =
                wanted.filter(|_| is_gone).map(|wanted| (Arc::clone(wanted), DirectoryState::Missing));
            self.observed.slots.get_mut(&port).unwrap().directory = directory;
        }
        // A connection may now have to wait for a worker's exit.
        self.waiting_since.values_mut().for_each(|since| *since = self.now);
        self.act();
    }

    fn assert_no_worker_has_the_wrong_data(&self) {
        for (port, process) in self.processes.iter().filter(|(_, process)| !process.is_stopping) {
            if let Some(wanted) = self.desired.assignments.get(port) {
                assert_eq!(process.missing_data, self.observed.missing_data(*port, wanted), "on {port}");
            }
        }
    }
}

#[test]
fn no_worker_serves_missing_data_and_each_tenant_is_served_once_it_is_back() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.change_registry();
        for _ in 0..STEPS {
            world.happen();
            if world.random.one_in(6) {
                world.lose_or_restore();
            }
            world.assert_no_worker_has_the_wrong_data();
        }
        world.observed.is_data_root_missing = true;
        world.act();
        world.settle();
        assert!(
            world.waiting_since.is_empty(),
            "seed {seed}: a connection was not refused for the missing data root"
        );
        assert!(world.processes.values().all(|process| process.missing_data == Some(MissingData::DataRoot)));
        world.observed.is_data_root_missing = false;
        world.observed.slots.values_mut().for_each(|slot| slot.directory = None);
        world.act();
        world.settle();
        assert!(world.waiting_since.is_empty(), "seed {seed}: a connection was never served");
        assert!(world.processes.values().all(|process| process.missing_data.is_none()), "seed {seed}");
    }
}
