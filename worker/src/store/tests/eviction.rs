//! Phexts that are evicted before they are saved, without extra saves.

use super::foreign::write_behind_our_back;
use super::*;
use crate::store::save_budget::SaveBudget;

const MIB: usize = 1024 * 1024;

/// Two phexts of which one fits into memory, and a store that has just saved both.
fn two_large(disk: &SimDisk) -> Store {
    let mut store = on_sim(disk, large(Duration::ZERO));
    store.set_limits(Limits { memory_bytes: 3 * MIB as u64, ..NO_LIMITS });
    for phext in ["a", "b"] {
        put_patiently(&mut store, phext, &"x".repeat(2 * MIB));
    }
    store
}

/// Lets the budget allow a phext's next save only in a minute.
fn spend_budget(store: &mut Store, phext: &str) {
    let mut spent = SaveBudget::default();
    spent.spend(0, Instant::now());
    if let Some(open) = store.cache.open_mut(&name(phext)) {
        open.set_budget(spent);
    }
}

/// Replaces a text, and waits for memory too; gives how many saves that took.
fn put_patiently(store: &mut Store, phext: &str, text: &str) -> usize {
    edit_patiently(store, phext, ORIGIN, Edit::Replace(text.to_owned()))
}

fn edit_patiently(store: &mut Store, phext: &str, place: &str, edit: Edit) -> usize {
    let write = Write { at: at(place), edit, expected: None, key: None };
    let mut saves = 0;
    loop {
        match store.write(&name(phext), &write) {
            Err(StoreError::NotYet) => saves += run_and_count(store),
            result => {
                let commit_points = result.unwrap().into_parts().1;
                saves += run_and_count(store);
                assert!(store.are_durable(&commit_points));
                return saves;
            }
        }
    }
}

fn run_and_count(store: &mut Store) -> usize {
    let mut saves = 0;
    loop {
        run_scan(store);
        let jobs = store.next_jobs();
        if jobs.is_empty() {
            return saves;
        }
        for job in jobs {
            saves += usize::from(matches!(job.work(), Some(Work::WriteFile { .. })));
            store.finish(job.run());
        }
    }
}

#[test]
fn small_writes_to_phexts_that_evict_each_other_are_not_saved_each_time() {
    let disk = SimDisk::new(1);
    let mut store = two_large(&disk);
    let mut saves = 0;
    for number in 0..20 {
        let phext = ["a", "b"][number % 2];
        saves += edit_patiently(&mut store, phext, "2.1.1/1.1.1/1.1.1", append("y"));
    }
    // The texts have paid for 12 MiB, the twenty writes for 3.75: that is seven saves, of which two have been made.
    assert!(saves <= 5, "{saves} saves");
    assert!(store.cache.held_bytes() <= 3 * MIB as u64);
    for disk in [disk.kill(), disk.crash(1)] {
        let mut store = on_sim(&disk, large(Duration::ZERO));
        for phext in ["a", "b"] {
            assert_eq!(scroll(&mut store, phext, "2.1.1/1.1.1/1.1.1"), "y".repeat(10));
        }
    }
    close(store);
    for phext in ["a", "b"] {
        assert!(saved(&disk, phext).unwrap().ends_with(&"y".repeat(10)));
    }
}

#[test]
fn a_reloaded_phext_continues_its_journal() {
    let disk = SimDisk::new(1);
    let mut store = two_large(&disk);
    edit_patiently(&mut store, "a", "2.1.1/1.1.1/1.1.1", append("1"));
    let generation = |disk: &SimDisk| disk.bytes(&journal_file("a")).unwrap()[8..16].to_vec();
    let before = generation(&disk);
    assert_eq!(scroll(&mut store, "b", ORIGIN).len(), 2 * MIB);
    assert!(store.cache.open(&name("a")).is_none());
    edit_patiently(&mut store, "a", "2.1.1/1.1.1/1.1.1", append("2"));
    assert_eq!(generation(&disk), before);
    assert_eq!(scroll(&mut store, "a", "2.1.1/1.1.1/1.1.1"), "12");
}

#[test]
fn another_programs_text_replaces_that_of_an_evicted_phext() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_at(dir.path(), large(Duration::ZERO));
    store.set_limits(Limits { memory_bytes: 3 * MIB as u64, ..NO_LIMITS });
    for phext in ["a", "b"] {
        put_patiently(&mut store, phext, &"x".repeat(2 * MIB));
    }
    edit_patiently(&mut store, "a", "2.1.1/1.1.1/1.1.1", append("ours"));
    assert_eq!(scroll(&mut store, "b", ORIGIN).len(), 2 * MIB);
    assert!(store.cache.open(&name("a")).is_none());
    write_behind_our_back(&dir.path().join("a.phext"), "theirs");
    assert_eq!(scroll(&mut store, "a", ORIGIN), "theirs");
    assert_eq!(scroll(&mut store, "a", "2.1.1/1.1.1/1.1.1"), "");
    close(store);
    assert_eq!(fs::read_to_string(dir.path().join("a.phext")).unwrap(), "theirs");
}

#[test]
fn an_evicted_phext_is_loaded_when_its_save_is_due() {
    let disk = SimDisk::new(1);
    let tuning = Tuning { save_delay: Duration::from_millis(1), ..large(Duration::ZERO) };
    let mut store = on_sim(&disk, tuning);
    store.set_limits(Limits { memory_bytes: 3 * MIB as u64, ..NO_LIMITS });
    // The first save is paid for by time, and is due in a millisecond.
    edit_patiently(&mut store, "a", ORIGIN, append(&"x".repeat(2 * MIB)));
    let _ = store.load(&name("b"));
    store.set_limits(Limits { memory_bytes: 1, ..NO_LIMITS });
    store.evict_others(&name("b"));
    store.set_limits(Limits { memory_bytes: 3 * MIB as u64, ..NO_LIMITS });
    while saved(&disk, "a").is_none() {
        run_jobs(&mut store);
    }
    assert_eq!(saved(&disk, "a").unwrap().len(), 2 * MIB);
    assert!(store.is_idle() && store.cache.unsaved.is_empty());
}

#[test]
fn closing_saves_all_evicted_phexts_even_if_another_program_changed_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_at(dir.path(), large(Duration::ZERO));
    store.set_limits(Limits { memory_bytes: 3 * MIB as u64, ..NO_LIMITS });
    let phexts = ["a", "b", "c"];
    for phext in phexts {
        put_patiently(&mut store, phext, &"x".repeat(2 * MIB));
        spend_budget(&mut store, phext);
        edit_patiently(&mut store, phext, "2.1.1/1.1.1/1.1.1", append("ours"));
    }
    assert_eq!(store.cache.unsaved.len(), 2);
    write_behind_our_back(&dir.path().join("a.phext"), "theirs");
    close(store);
    assert_eq!(fs::read_to_string(dir.path().join("a.phext")).unwrap(), "theirs");
    for phext in ["b", "c"] {
        assert!(
            fs::read_to_string(dir.path().join(phext).with_extension("phext")).unwrap().ends_with("ours")
        );
    }
}

#[test]
fn a_listing_shows_an_evicted_phext_without_loading_it() {
    let disk = SimDisk::new(1);
    let mut store = two_large(&disk);
    let rows = |store: &mut Store| -> Vec<(u64, Option<usize>)> {
        list(store).into_iter().map(|listed| (listed.bytes, listed.scrolls)).collect()
    };
    let text = 2 * MIB as u64;
    assert_eq!(rows(&mut store), [(text, Some(1)), (text, Some(1))]);
    let _ = store.load(&name("a")).unwrap();
    spend_budget(&mut store, "a");
    edit_patiently(&mut store, "a", "1.1.1/1.1.1/1.1.2", append("y"));
    assert_eq!(scroll(&mut store, "b", ORIGIN).len(), 2 * MIB);
    assert_eq!(store.cache.unsaved.len(), 1);
    assert_eq!(rows(&mut store), [(text + 2, Some(2)), (text, Some(1))]);
    assert_eq!(store.cache.unsaved.len(), 1);
}

#[test]
fn on_a_full_disk_evicted_phexts_are_not_loaded() {
    let disk = SimDisk::new(1);
    let tuning = Tuning { save_delay: Duration::from_millis(1), ..large(Duration::ZERO) };
    let mut store = on_sim(&disk, tuning);
    store.set_limits(Limits { memory_bytes: 3 * MIB as u64, ..NO_LIMITS });
    let phexts = ["a", "b", "c", "d"];
    for phext in phexts {
        put_patiently(&mut store, phext, &"x".repeat(2 * MIB));
        spend_budget(&mut store, phext);
        edit_patiently(&mut store, phext, "2.1.1/1.1.1/1.1.1", append("y"));
    }
    disk.set_capacity_bytes(Some(0));
    assert!(store.save_evicted_soon());
    for _ in 0..20 {
        run_jobs(&mut store);
    }
    assert!(store.cache.held_bytes() < 6 * MIB as u64, "{}", store.cache.held_bytes());
    close(store);
    for disk in [disk.kill(), disk.crash(1)] {
        disk.set_capacity_bytes(None);
        let mut store = on_sim(&disk, tuning);
        for phext in phexts {
            assert_eq!(scroll(&mut store, phext, "2.1.1/1.1.1/1.1.1"), "y");
        }
    }
}
