//! When a write or a read may be told: not before it is on disk.

use super::*;

fn read_tickets(store: &mut Store, phext: &str) -> Vec<Ticket> {
    store.read(&name(phext)).unwrap().into_parts().1
}

/// The number of journal syncs among some jobs.
fn syncs(jobs: &[Job]) -> usize {
    use crate::store::job::Work;
    jobs.iter().filter(|job| matches!(job.work, Work::Sync { .. } | Work::Install { .. })).count()
}

#[test]
fn a_read_waits_for_the_write_that_it_sees() {
    for pace in [Pace::DEFAULT, unsaved()] {
        let disk = SimDisk::new(1);
        let mut store = on_sim(&disk, pace);
        assert!(read_tickets(&mut store, "notes").is_empty());
        begin(&mut store, "notes", ORIGIN, append("abc"));
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "abc");
        let tickets = read_tickets(&mut store, "notes");
        let listed = store.list().unwrap().into_parts().1;
        assert!(!store.is_settled(&tickets) && !store.is_settled(&listed));
        assert!(!tickets.is_empty() && !listed.is_empty());
        run_jobs(&mut store);
        assert!(store.is_settled(&tickets) && store.is_settled(&listed));
        assert!(read_tickets(&mut store, "notes").is_empty());
        assert!(read_tickets(&mut store, "other").is_empty());
    }
}

#[test]
fn whatever_moment_the_power_goes_what_is_settled_is_there() {
    for pace in [Pace::DEFAULT, large(Duration::ZERO), unsaved()] {
        let disk = SimDisk::new(1);
        let mut store = on_sim(&disk, pace);
        put(&mut store, "notes", ORIGIN, "first ").unwrap();
        let tickets = begin(&mut store, "notes", ORIGIN, append("second"));
        loop {
            let found = disk.crash(disk.changes());
            let mut next = on_sim(&found, pace);
            let text = scroll(&mut next, "notes", ORIGIN);
            assert!(text == "first second" || text == "first " && !store.is_settled(&tickets));
            let Some(job) = store.next_jobs().into_iter().next() else { break };
            store.finish(job.run());
        }
        assert!(store.is_settled(&tickets));
    }
}

#[test]
fn a_small_phext_is_in_its_file_before_the_write_is_settled() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Pace::DEFAULT);
    let tickets = begin(&mut store, "notes", ORIGIN, append("abc"));
    while !store.is_settled(&tickets) {
        assert_eq!(saved(&disk, "notes"), None);
        let jobs = store.next_jobs();
        assert!(!jobs.is_empty());
        jobs.into_iter().for_each(|job| store.finish(job.run()));
    }
    assert_eq!(saved(&disk, "notes").unwrap(), "abc");
}

#[test]
fn a_large_phext_is_in_its_journal_and_no_more() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    let tickets = begin(&mut store, "notes", ORIGIN, append("abc"));
    let jobs = store.next_jobs();
    assert_eq!((jobs.len(), syncs(&jobs)), (1, 1));
    assert!(!store.is_settled(&tickets));
    jobs.into_iter().for_each(|job| store.finish(job.run()));
    assert!(store.is_settled(&tickets));
    assert_eq!(saved(&disk, "notes"), None);
    assert!(store.next_jobs().is_empty() && store.next_wakeup().is_some());
}

#[test]
fn writes_that_wait_together_share_a_sync_and_later_ones_do_not() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    put(&mut store, "notes", ORIGIN, "a").unwrap();
    let one = begin(&mut store, "notes", ORIGIN, append("b"));
    let two = begin(&mut store, "notes", ORIGIN, append("c"));
    let mut jobs = store.next_jobs();
    assert_eq!(syncs(&jobs), 1);
    let late = begin(&mut store, "notes", ORIGIN, append("d"));
    assert!(store.next_jobs().is_empty(), "one sync at a time");
    let changes = disk.changes();
    let done = jobs.remove(0).run();
    assert_eq!(disk.changes(), changes + 1);
    store.finish(done);
    assert!(store.is_settled(&one) && store.is_settled(&two));
    assert!(!store.is_settled(&late));
    run_jobs(&mut store);
    assert!(store.is_settled(&late));
}

#[test]
fn phexts_do_not_wait_for_each_other() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    let slow = begin(&mut store, "slow", ORIGIN, append("a"));
    let held = store.next_jobs();
    let quick = begin(&mut store, "quick", ORIGIN, append("b"));
    store.next_jobs().into_iter().for_each(|job| store.finish(job.run()));
    assert!(store.is_settled(&quick) && !store.is_settled(&slow));
    held.into_iter().for_each(|job| store.finish(job.run()));
    assert!(store.is_settled(&slow));
}
