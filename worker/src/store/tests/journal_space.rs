//! Journals, and files beyond their texts, have little space.

use super::retirement::{KIB, ask, files, journals_bytes, request};
use super::*;
use crate::store::save_budget::SaveBudget;

#[test]
fn journals_stay_within_the_quota_and_a_constant() {
    let tuning = Tuning { journals_bytes: 256 * KIB, ..Tuning::DEFAULT };
    let quota_bytes = 64 * KIB;
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, tuning);
    store.set_limits(Limits { quota_bytes: Some(quota_bytes), ..NO_LIMITS });
    let mut longest_bytes = 0;
    for round in 0..4 {
        for phext in 0..16 {
            // A long text that becomes a short one leaves a long journal.
            for text in [30_000, 1] {
                let write = request(Edit::Replace("x".repeat(text)), &format!("{round} {text}"));
                // Fifteen others have a block each.
                let written = ask(&mut store, &format!("p{phext}"), &write);
                assert!(written.is_ok() || text == 30_000, "{written:?}");
                longest_bytes = longest_bytes.max(journals_bytes(&disk));
            }
        }
    }
    assert!(longest_bytes > tuning.journals_bytes / 2, "the test is too small: {longest_bytes}");
    assert!(longest_bytes <= quota_bytes + tuning.journals_bytes, "{longest_bytes}");
    close(store);
    let mut store = on_sim(&disk.kill(), tuning);
    for phext in 0..16 {
        assert_eq!(scroll(&mut store, &format!("p{phext}"), ORIGIN), "x");
        let write = request(Edit::Replace("x".to_owned()), "0 1");
        assert!(ask(&mut store, &format!("p{phext}"), &write).unwrap().is_replay);
    }
}

#[test]
fn long_journals_of_phexts_that_are_not_in_memory_are_removed_too() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    for phext in 0..20 {
        for text in [20_000, 1] {
            let write = request(Edit::Replace("x".repeat(text)), &text.to_string());
            ask(&mut store, &format!("p{phext}"), &write).unwrap();
        }
    }
    close(store);
    assert!(journals_bytes(&disk) > 400_000);
    let tuning = Tuning { journals_bytes: 64 * KIB, ..Tuning::DEFAULT };
    let mut store = on_sim(&disk, tuning);
    store.set_limits(Limits { quota_bytes: Some(20 * 4 * KIB), ..NO_LIMITS });
    // The account has been taken; the next one, which comes in time or before a refusal, looks for names.
    while ask(&mut store, "new", &request(append("text"), "key")).is_err()
        && journals_bytes(&disk) > tuning.journals_bytes
    {}
    assert!(journals_bytes(&disk) <= tuning.journals_bytes, "{:?}", files(&disk));
    for phext in 0..20 {
        let write = request(Edit::Replace("x".to_owned()), "1");
        assert!(ask(&mut store, &format!("p{phext}"), &write).unwrap().is_replay);
    }
}

#[test]
fn keys_alone_make_no_journal_long() {
    let tuning = Tuning { compact_journal_bytes: 4 * KIB, ..Tuning::DEFAULT };
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, tuning);
    put(&mut store, "notes", ORIGIN, "text").unwrap();
    for number in 0..6000 {
        let nothing = Write { at: at("2.1.1/1.1.1/1.1.1"), ..request(Edit::Remove, &number.to_string()) };
        assert!(!ask(&mut store, "notes", &nothing).unwrap().is_replay);
    }
    let journal_bytes = disk.bytes(&journal_file("notes")).unwrap().len() as u64;
    assert!(journal_bytes < 4096 * 74 + 5 * KIB, "{journal_bytes}");
}

#[test]
fn keys_of_one_batch_make_no_journal_long() {
    let tuning = Tuning { compact_journal_bytes: 4 * KIB, ..Tuning::DEFAULT };
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, tuning);
    put(&mut store, "notes", ORIGIN, "text").unwrap();
    let mut number = 0;
    let mut write_nothing = |store: &mut Store| {
        number += 1;
        let nothing = Write { at: at("2.1.1/1.1.1/1.1.1"), ..request(Edit::Remove, &number.to_string()) };
        let _ = store.write(&name("notes"), &nothing).unwrap();
    };
    for _ in 0..6000 {
        write_nothing(&mut store);
        let jobs = store.next_jobs();
        // Another one while the job runs.
        write_nothing(&mut store);
        jobs.into_iter().for_each(|job| store.finish(job.run()));
    }
    run_jobs(&mut store);
    let journal_bytes = disk.bytes(&journal_file("notes")).unwrap().len() as u64;
    assert!(journal_bytes < 4096 * 74 + 5 * KIB, "{journal_bytes}");
}

#[test]
fn on_a_tight_disk_many_keys_are_not_rewritten_after_every_few_writes() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    put(&mut store, "notes", ORIGIN, "text").unwrap();
    let mut write = |number: usize| {
        ask(&mut store, "notes", &request(Edit::Replace(number.to_string()), &number.to_string())).unwrap();
        disk.bytes(&journal_file("notes")).unwrap()[8..16].to_vec()
    };
    (0..2000).for_each(|number| _ = write(number));
    disk.set_capacity_bytes(Some(1 << 20));
    // Far fewer bytes than the keys take.
    let generations: BTreeSet<Vec<u8>> = (2000..2200).map(write).collect();
    assert!(generations.len() <= 2, "{} journals", generations.len());
}

/// Files that the worker has not read count as well: the texts that a scan finds leave the journals no more space.
#[test]
fn a_new_start_gives_journals_no_more_space() {
    let tuning = Tuning { journals_bytes: 256 * KIB, ..Tuning::DEFAULT };
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, tuning);
    for phext in 0..40 {
        put(&mut store, &format!("p{phext}"), ORIGIN, &"x".repeat(40_000)).unwrap();
    }
    close(store);
    for phext in 0..40 {
        disk.remove(&journal_file(&format!("p{phext}"))).unwrap();
    }
    let mut store = Store::on(Arc::new(disk.clone()), NO_LIMITS, tuning);
    store.set_limits(Limits { quota_bytes: Some(40 * 40_000), ..NO_LIMITS });
    for phext in 0..40 {
        let same_length = request(Edit::Replace("y".repeat(40_000)), "key");
        ask(&mut store, &format!("p{phext}"), &same_length).unwrap();
        let bytes = journals_bytes(&disk);
        assert!(bytes <= tuning.journals_bytes, "{bytes}");
    }
}

/// Saves that are not paid for would leave long files beside the texts that others write meanwhile.
#[test]
fn files_beyond_their_texts_count_until_they_are_saved() {
    let tuning = Tuning { journals_bytes: 256 * KIB, save_delay: Duration::ZERO, ..Tuning::DEFAULT };
    let quota_bytes = 3_500_000;
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, tuning);
    store.set_limits(Limits { quota_bytes: Some(quota_bytes), ..NO_LIMITS });
    let second = "2.1.1/1.1.1/1.1.1";
    for phext in (0..8).map(|number| format!("p{number}")) {
        for (place, bytes) in [(ORIGIN, 300_000), (second, 900_000)] {
            let edit = Edit::Replace("x".repeat(bytes));
            ask(&mut store, &phext, &Write { at: at(place), ..request(edit, place) }).unwrap();
        }
        // Its next save is paid for in a minute.
        let mut spent = SaveBudget::default();
        spent.spend(0, Instant::now());
        store.cache.open_mut(&name(&phext)).unwrap().set_budget(spent);
        ask(&mut store, &phext, &Write { at: at(second), ..request(Edit::Remove, "delete") }).unwrap();
        let bytes: u64 = files(&disk).values().sum();
        assert!(bytes <= quota_bytes + tuning.journals_bytes + 900_000, "{phext}: {:?}", files(&disk));
    }
}
