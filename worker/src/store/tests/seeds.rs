//! The store on a disk that loses, tears and reorders what was not synced, fails and fills up: ten thousand
//! lives of it, each from its seed.
//!
//! A phext's journal has one order, so the judge is strict: after each cut a phext is what it was after some
//! number of its writes, at least as many as were acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use sq_tests::random::Random;

use super::*;
use crate::store::disk::sim::SimDisk;

const SEEDS: u64 = 10_000;

type Scrolls = BTreeMap<Coordinate, String>;

/// A write that was asked for.
struct Attempt {
    write: Write,
    commit_points: Option<Vec<CommitPoint>>,
    /// What the phext is after it.
    scrolls: Scrolls,
}

/// All that is known of a phext from outside.
#[derive(Default)]
struct History {
    /// What it was when this began.
    first: Scrolls,
    attempts: Vec<Attempt>,
    /// So many of the attempts have been acknowledged, and so many at least have been read.
    acknowledged: usize,
    read: usize,
    /// What it may be as well: after a write that was refused, which a cut may bring back.
    refused: Vec<(usize, Scrolls)>,
}

impl History {
    fn now(&self) -> &Scrolls {
        self.attempts.last().map_or(&self.first, |attempt| &attempt.scrolls)
    }

    fn after(&self, attempts: usize) -> &Scrolls {
        attempts.checked_sub(1).map_or(&self.first, |index| &self.attempts[index].scrolls)
    }

    /// What a phext must be after a cut; goes on from there. Gives whether it is known which of its writes it
    /// has; if not, all that it has must be settled before anything else happens.
    fn judge(&mut self, found: &Scrolls) -> bool {
        let count = (self.acknowledged..=self.attempts.len()).rev().find(|count| self.after(*count) == found);
        let was_refused =
            self.refused.iter().any(|(count, scrolls)| *count >= self.acknowledged && scrolls == found);
        assert!(
            count.is_some() || was_refused,
            "{found:?} is not what the phext was after {} to {} writes; last {:?}",
            self.acknowledged,
            self.attempts.len(),
            self.now(),
        );
        // A state that was there twice does not tell which of the two it is.
        let is_certain = (0..=self.attempts.len()).filter(|count| self.after(*count) == found).count() == 1;
        self.refused.clear();
        match count {
            Some(count) if is_certain => self.attempts.truncate(count),
            _ => *self = Self { first: found.clone(), ..Self::default() },
        }
        self.attempts.iter_mut().for_each(|attempt| attempt.commit_points = None);
        self.read = 0;
        is_certain
    }

    /// A read shows some state between the last acknowledged one and the last one, and never goes back.
    fn note_read(&mut self, found: &Scrolls) {
        let first = self.read.max(self.acknowledged);
        let read = (first..=self.attempts.len()).find(|count| self.after(*count) == found);
        self.read =
            read.unwrap_or_else(|| panic!("read {found:?}, which is older than {:?}", self.after(first)));
    }

    /// The disk has refused attempts: the first one and all behind it. Nothing of them was ever told.
    fn note_refused(&mut self, first: usize) {
        assert!(self.acknowledged <= first && self.read <= first, "what was told was refused later");
        for attempt in self.attempts.drain(first..) {
            self.refused.push((first, attempt.scrolls));
        }
    }
}

struct Life {
    random: Random,
    disk: SimDisk,
    tick: LoopTick,
    store: Store,
    jobs: Vec<Job>,
    histories: [History; 2],
    texts: u64,
    /// The third scroll; far away in few lives, for the breaks on the way to it are many bytes.
    last_scroll: u32,
}

fn tuning(random: &mut Random) -> Tuning {
    Tuning {
        save_before_answer_bytes: [0, 40, 1 << 20][random.below(3)],
        save_delay: Duration::ZERO,
        save_retry_delay: Duration::ZERO,
        long_journal_bytes: 300,
        compact_journal_bytes: random.below(600),
        journals_bytes: random.below(10_000),
    }
}

/// With the smaller quota journals have little room, and some writes are refused.
fn open_store(disk: &SimDisk, tuning: Tuning, tick: &LoopTick, random: &mut Random) -> Store {
    let mut store = on_sim(disk, tuning).with_loop_tick(tick.clone());
    if random.one_in(2) {
        store = store.with_read_jobs();
    }
    let quota_bytes = [None, Some(9000)][random.below(2)];
    store.set_limits(Limits { quota_bytes, ..NO_LIMITS });
    store
}

fn phext(index: usize) -> PhextName {
    name(["", "two"][index])
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(seed);
        let tuning = tuning(&mut random);
        let tick = LoopTick::without_expiry();
        let store = open_store(&disk, tuning, &tick, &mut random);
        let last_scroll = if seed.is_multiple_of(50) { 100_001 } else { 3 };
        let (jobs, histories) = (Vec::new(), Default::default());
        Self { random, disk, tick, store, jobs, histories, texts: 0, last_scroll }
    }

    fn live(&mut self) {
        for _ in 0..3 {
            if self.random.one_in(3) {
                let operations = 5 + self.random.below(60);
                self.disk.fail_one_in(Some(operations));
            }
            if self.random.one_in(4) {
                self.disk.set_capacity_bytes(Some(300 + self.random.below(5000)));
            }
            for _ in 0..self.random.below(40) {
                self.step();
                if self.store.is_in_doubt() {
                    break;
                }
            }
            self.cut();
        }
        self.close();
    }

    fn step(&mut self) {
        if self.random.one_in(20) {
            // With little memory a phext leaves it for the other one.
            let memory_bytes = [u64::MAX, 1500][self.random.below(2)];
            let quota_bytes = self.store.usage.quota_bytes;
            self.store.set_limits(Limits { quota_bytes, memory_bytes, ..NO_LIMITS });
        }
        match self.random.below(11) {
            0..4 => self.write(),
            4 => self.repeat(),
            5 => self.read(),
            6..8 => {
                run_scan(&mut self.store);
                self.jobs.extend(self.store.next_jobs());
            }
            _ => self.run_job(),
        }
        if self.store.is_in_doubt() {
            return;
        }
        for history in &mut self.histories {
            let settled = |attempt: &Attempt| Some(self.store.is_durable(attempt.commit_points.as_ref()?));
            let refused =
                history.attempts.iter().position(|attempt| matches!(settled(attempt), Some(Err(_))));
            if let Some(first) = refused {
                history.note_refused(first);
            }
            let settled = |attempt: &Attempt| matches!(settled(attempt), Some(Ok(true)));
            let acknowledged = history.attempts.iter().rposition(settled).map_or(0, |index| index + 1);
            history.acknowledged = history.acknowledged.max(acknowledged);
        }
    }

    fn write(&mut self) {
        let index = self.random.below(2);
        let number = [1, 2, self.last_scroll][self.random.below(3)];
        let place = Coordinate::from_parts([1, 1, 1, 1, 1, 1, 1, 1, number]).unwrap();
        self.texts += 1;
        let text = "x".repeat(self.random.below(60)) + &format!("{};", self.texts);
        let is_there = self.histories[index].now().contains_key(&place);
        let edit = match self.random.below(4) {
            0 if is_there => Edit::Remove,
            1 | 2 => Edit::Append(text),
            _ => Edit::Replace(text),
        };
        let key = Some(WriteKey::new(KeyOrigin::Client, &self.texts.to_string()));
        let write = Write { at: place, edit, expected: None, key };
        let history = &mut self.histories[index];
        let mut scrolls = history.now().clone();
        model_edit(&mut scrolls, &write);
        let result = self.store.write(&phext(index), &write);
        match result {
            Ok(pending) => {
                let (written, commit_points) = pending.into_parts();
                assert!(!written.is_replay);
                history.attempts.push(Attempt { write, commit_points: Some(commit_points), scrolls });
            }
            Err(StoreError::NotYet | StoreError::QuotaExceeded { .. }) => {}
            Err(StoreError::InDoubt | StoreError::Io(_) | StoreError::DiskFull { .. }) => {
                history.refused.push((history.attempts.len(), scrolls));
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether or not a look is shared, the worker's own writes are seen once they are durable.
    fn read(&mut self) {
        let index = self.random.below(2);
        if self.random.one_in(2) {
            self.tick.end();
        }
        match self.store.read(&phext(index)) {
            Ok(pending) => {
                let (found, commit_points) = pending.into_parts();
                let found = found.iter().map(|(at, text)| (*at, text.to_owned())).collect();
                if self.store.are_durable(&commit_points) {
                    self.histories[index].note_read(&found);
                }
            }
            Err(StoreError::NotYet | StoreError::InDoubt | StoreError::Io(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Asks again for a write that was made: nothing must change.
    fn repeat(&mut self) {
        let index = self.random.below(2);
        let history = &self.histories[index];
        if history.attempts.is_empty() {
            return;
        }
        let attempt = self.random.below(history.attempts.len());
        match self.store.write(&phext(index), &history.attempts[attempt].write) {
            Ok(pending) => assert!(pending.into_parts().0.is_replay),
            Err(StoreError::NotYet | StoreError::InDoubt | StoreError::Io(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn run_job(&mut self) {
        if self.jobs.is_empty() {
            return;
        }
        let index = self.random.below(self.jobs.len());
        let job = self.jobs.remove(index);
        if matches!(job.work(), Some(Work::WriteFile { .. })) && self.random.one_in(2) {
            // A save takes its time.
            self.jobs.push(job);
            return;
        }
        self.store.finish(job.run());
    }

    fn run_all_jobs(&mut self) {
        self.jobs.drain(..).for_each(|job| self.store.finish(job.run()));
        run_jobs(&mut self.store);
    }

    /// The worker is killed or the power goes, and the next worker looks at what there is.
    fn cut(&mut self) {
        let seed = self.random.next_u64();
        if !self.jobs.is_empty() && self.random.one_in(2) {
            self.disk.stop_after(self.random.below(4));
            let job = self.jobs.remove(0);
            drop(job.run());
        }
        self.jobs.clear();
        self.disk = if self.random.one_in(2) { self.disk.crash(seed) } else { self.disk.kill() };
        self.disk.set_capacity_bytes(None);
        let tuning = tuning(&mut self.random);
        self.store = open_store(&self.disk, tuning, &self.tick, &mut self.random);
        let mut is_to_settle = self.random.one_in(2);
        for (index, history) in self.histories.iter_mut().enumerate() {
            let found = read_at_last(&mut self.store, &mut self.jobs, &phext(index));
            is_to_settle |= !history.judge(&found);
        }
        if is_to_settle {
            self.run_all_jobs();
            self.histories.iter_mut().for_each(|history| history.acknowledged = history.attempts.len());
        }
    }

    fn close(&mut self) {
        self.store.close();
        self.run_all_jobs();
        assert!(self.store.is_idle() && !self.store.is_in_doubt());
        for (index, history) in self.histories.iter().enumerate() {
            let text = self.disk.bytes(&FileName::Phext(phext(index))).unwrap_or_default();
            let saved = Phext::parse(&text).unwrap();
            let saved: Scrolls = saved.iter().map(|(at, text)| (*at, text.to_owned())).collect();
            assert_eq!(&saved, history.now());
        }
    }
}

/// What a phext has, once it has been read. Other jobs that come up meanwhile are left for later.
fn read_at_last(store: &mut Store, jobs: &mut Vec<Job>, phext: &PhextName) -> Scrolls {
    loop {
        match store.read(phext) {
            Ok(pending) => {
                let (found, _) = pending.into_parts();
                return found.iter().map(|(at, text)| (*at, text.to_owned())).collect();
            }
            Err(StoreError::NotYet) => {
                let (reads, others): (Vec<_>, Vec<_>) =
                    store.next_jobs().into_iter().partition(|job| matches!(job.task, Task::Read(_)));
                assert!(!reads.is_empty(), "nothing is read");
                jobs.extend(others);
                reads.into_iter().for_each(|job| store.finish(job.run()));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn model_edit(scrolls: &mut Scrolls, write: &Write) {
    match &write.edit {
        Edit::Append(text) => scrolls.entry(write.at).or_default().push_str(text),
        Edit::Replace(text) => _ = scrolls.insert(write.at, text.clone()),
        Edit::Remove => _ = scrolls.remove(&write.at),
    }
}

#[test]
fn no_life_loses_an_acknowledged_write() {
    for seed in 0..SEEDS {
        let life = std::panic::catch_unwind(|| Life::new(seed).live());
        assert!(life.is_ok(), "seed {seed}");
    }
}
