//! A phext without text leaves no files, and its keys are remembered.

use super::foreign::write_behind_our_back;
use super::*;
use crate::store::disk::file_of;
use crate::store::retired_keys::RETIRED_KEY_LIMITS;
use crate::store::save_budget::SMALLEST_WRITE_BYTES;

pub(super) const KIB: u64 = 1024;

pub(super) fn request(edit: Edit, key: &str) -> Write {
    Write { at: at(ORIGIN), edit, expected: None, key: Some(WriteKey::new(KeyOrigin::Client, key)) }
}

/// Writes, and waits until the write is durable, also for space.
pub(super) fn ask(store: &mut Store, phext: &str, write: &Write) -> Result<WriteReceipt, StoreError> {
    loop {
        match store.write(&name(phext), write) {
            Err(StoreError::NotYet) => run_jobs(store),
            result => {
                let (written, commit_points) = result?.into_parts();
                run_jobs(store);
                assert!(store.is_durable(&commit_points)?);
                return Ok(written);
            }
        }
    }
}

/// Every file of the directory but the reserve, by its name, with its bytes.
pub(super) fn files(disk: &SimDisk) -> BTreeMap<String, u64> {
    let mut files = BTreeMap::new();
    let visited = disk.visit(&mut |file| {
        let name = file.to_str().unwrap();
        let bytes = disk.bytes(&file_of(file).unwrap()).unwrap().len() as u64;
        if name != ".reserve" {
            files.insert(name.to_owned(), bytes);
        }
    });
    visited.unwrap();
    files
}

fn names_of(disk: &SimDisk) -> Vec<String> {
    files(disk).into_keys().collect()
}

pub(super) fn journals_bytes(disk: &SimDisk) -> u64 {
    files(disk).into_iter().filter(|(name, _)| name.ends_with(".journal")).map(|(_, bytes)| bytes).sum()
}

#[test]
fn a_phext_without_text_leaves_nothing_but_its_keys() {
    for tuning in [Tuning::DEFAULT, large(Duration::ZERO), unsaved()] {
        let disk = SimDisk::new(1);
        let mut store = on_sim(&disk, tuning);
        let (insert, delete) = (request(append("abc"), "insert"), request(Edit::Remove, "delete"));
        let once = |bytes| WriteReceipt { bytes, is_replay: false };
        assert_eq!(ask(&mut store, "notes", &insert).unwrap(), once(3));
        assert_eq!(ask(&mut store, "notes", &delete).unwrap(), once(3));
        assert_eq!(ask(&mut store, "never", &delete).unwrap(), once(0));
        assert_eq!(names_of(&disk), [".keys"]);
        assert_eq!((store.usage.phexts(), store.cache.count()), (Some(0), 0));
        let again = WriteReceipt { bytes: 3, is_replay: true };
        assert_eq!(ask(&mut store, "notes", &insert).unwrap(), again);
        put(&mut store, "notes", ORIGIN, "another's").unwrap();
        for write in [&insert, &delete] {
            assert_eq!(ask(&mut store, "notes", write).unwrap(), again);
        }
        assert!(matches!(
            ask(&mut store, "notes", &request(append("abd"), "insert")),
            Err(StoreError::KeyReused)
        ));
        close(store);
        for disk in [disk.kill(), disk.crash(1)] {
            let mut store = on_sim(&disk, tuning);
            for write in [&insert, &delete] {
                assert_eq!(ask(&mut store, "notes", write).unwrap(), again);
            }
            assert!(ask(&mut store, "never", &delete).unwrap().is_replay);
            assert!(!ask(&mut store, "other", &insert).unwrap().is_replay);
            assert_eq!(scroll(&mut store, "notes", ORIGIN), "another's");
        }
    }
}

/// Phexts come and go, so that their files do. Gives what was acknowledged.
fn come_and_go(disk: &SimDisk) -> Vec<(String, Write)> {
    let mut acknowledged = Vec::new();
    let mut store = on_sim(disk, Tuning::DEFAULT);
    for round in 0..3 {
        for phext in ["a", "b"] {
            for (edit, key) in [(append("text"), "insert"), (Edit::Remove, "delete")] {
                let write = request(edit, &format!("{key}-{round}"));
                match ask(&mut store, phext, &write) {
                    Ok(written) => assert!(!written.is_replay),
                    Err(_) => return acknowledged,
                }
                acknowledged.push((phext.to_owned(), write));
            }
        }
    }
    acknowledged
}

#[test]
fn an_end_at_any_change_of_the_disk_forgets_no_key_and_brings_no_text_back() {
    let whole = SimDisk::new(1);
    assert_eq!(come_and_go(&whole).len(), 12);
    for point in 0..=whole.changes() {
        let disk = SimDisk::new(point);
        disk.stop_after(point);
        let acknowledged = come_and_go(&disk);
        let ends = std::iter::once(disk.kill()).chain((0..6).map(|seed| disk.crash(seed)));
        for after in ends {
            let mut store = on_sim(&after, Tuning::DEFAULT);
            // The write that was interrupted may have been applied.
            let struck = ["a", "a", "b", "b"][acknowledged.len() % 4];
            for phext in ["a", "b"] {
                let last = acknowledged.iter().rfind(|(of, _)| of == phext).map(|(_, write)| &write.edit);
                let is_gone = !matches!(last, Some(Edit::Append(_)));
                let text = scroll(&mut store, phext, ORIGIN);
                assert!(phext == struck || text.is_empty() == is_gone, "point {point}: {phext} is {text:?}");
            }
            for (phext, write) in &acknowledged {
                let is_replay = ask(&mut store, phext, write).unwrap().is_replay;
                assert!(is_replay, "point {point}: {phext} {write:?}");
            }
            close(store);
            assert!(names_of(&after).len() <= 3, "point {point}: {:?}", files(&after));
        }
    }
}

#[test]
fn a_hundred_thousand_names_leave_the_last_keys_and_nothing_else() {
    const NAMES: usize = 100_000;
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    let delete = request(Edit::Remove, "key");
    for number in 0..NAMES {
        let _ = store.write(&name(&number.to_string()), &delete).unwrap();
        if number % 64 == 0 {
            run_jobs(&mut store);
        }
    }
    run_jobs(&mut store);
    assert_eq!(names_of(&disk), [".keys"]);
    for disk in [disk.clone(), disk.kill()] {
        let mut store = on_sim(&disk, Tuning::DEFAULT);
        let mut is_known = |number: usize| ask(&mut store, &number.to_string(), &delete).unwrap().is_replay;
        assert!(is_known(NAMES - RETIRED_KEY_LIMITS.clients) && is_known(NAMES - 1));
        assert!(!is_known(NAMES - RETIRED_KEY_LIMITS.clients - 1));
    }
    let bytes = files(&disk)[".keys"];
    assert!(bytes < RETIRED_KEY_LIMITS.clients as u64 * 74 + 1100 * KIB, "{bytes}");
}

#[test]
fn keys_that_are_damaged_stop_writes_and_no_reads() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    put(&mut store, "notes", ORIGIN, "text").unwrap();
    for key in ["1", "2"] {
        ask(&mut store, "gone", &request(Edit::Remove, key)).unwrap();
    }
    close(store);
    let mut bytes = disk.bytes(&FileName::Keys).unwrap();
    bytes[80] ^= 1;
    disk.replace_behind_our_back(&FileName::Keys, &bytes);
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "text");
    let refused = ask(&mut store, "notes", &request(append("more"), "3"));
    assert!(matches!(refused, Err(StoreError::Damaged(Damage::Keys(_)))), "{refused:?}");
    close(store);
}

#[test]
fn files_that_cannot_be_removed_are_retried_and_the_delete_is_acknowledged() {
    for operation in [Operation::Create, Operation::Remove, Operation::Rename] {
        let disk = SimDisk::new(1);
        let tuning = Tuning { save_retry_delay: Duration::ZERO, ..Tuning::DEFAULT };
        let mut store = on_sim(&disk, tuning);
        ask(&mut store, "notes", &request(append("text"), "1")).unwrap();
        disk.fail(operation, 1, Errno::ACCESS);
        ask(&mut store, "notes", &request(Edit::Remove, "2")).unwrap();
        for (write, is_replay) in [(request(append("text"), "1"), true), (request(append("new"), "3"), false)]
        {
            assert_eq!(ask(&mut store, "notes", &write).unwrap().is_replay, is_replay);
        }
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "new", "{operation:?}");
        close(store);
        for disk in [disk.kill(), disk.crash(1)] {
            let mut store = on_sim(&disk, tuning);
            assert_eq!(scroll(&mut store, "notes", ORIGIN), "new", "{operation:?}");
            assert!(ask(&mut store, "notes", &request(Edit::Remove, "2")).unwrap().is_replay);
        }
    }
}

#[test]
fn another_programs_text_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes.phext");
    let mut store = open(dir.path());
    put(&mut store, "notes", ORIGIN, "text").unwrap();
    let _ = begin(&mut store, "notes", ORIGIN, Edit::Remove);
    for job in store.next_jobs() {
        store.finish(job.run());
    }
    let retirement = store.next_jobs();
    assert_eq!(retirement.len(), 1);
    write_behind_our_back(&file, "theirs");
    retirement.into_iter().for_each(|job| store.finish(job.run()));
    run_jobs(&mut store);
    assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "theirs");
}

#[test]
fn what_is_written_during_a_retirement_gets_new_files() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    ask(&mut store, "notes", &request(append("text"), "1")).unwrap();
    let _ = store.write(&name("notes"), &request(Edit::Remove, "2")).unwrap();
    for job in store.next_jobs() {
        store.finish(job.run());
    }
    let retirement = store.next_jobs();
    assert_eq!(retirement.len(), 1);
    let commit_points = store.write(&name("notes"), &request(append("new"), "3")).unwrap().into_parts().1;
    assert!(!store.are_durable(&commit_points));
    let done: Vec<_> = retirement.into_iter().map(Job::run).collect();
    assert_eq!(saved(&disk, "notes"), None);
    // That its file is gone is no edit of another program.
    let _ = store.write(&name("notes"), &request(append("er"), "4")).unwrap();
    assert_eq!(in_memory(&store, "notes"), "newer");
    done.into_iter().for_each(|done| store.finish(done));
    run_jobs(&mut store);
    assert!(store.are_durable(&commit_points));
    for disk in [disk.kill(), disk.crash(1)] {
        let mut store = on_sim(&disk, Tuning::DEFAULT);
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "newer");
        for (edit, key) in
            [(append("text"), "1"), (Edit::Remove, "2"), (append("new"), "3"), (append("er"), "4")]
        {
            assert!(ask(&mut store, "notes", &request(edit, key)).unwrap().is_replay);
        }
    }
}

#[test]
fn the_key_of_a_write_that_was_refused_during_a_retirement_is_free() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    ask(&mut store, "notes", &request(append("text"), "1")).unwrap();
    let _ = store.write(&name("notes"), &request(Edit::Remove, "2")).unwrap();
    for job in store.next_jobs() {
        store.finish(job.run());
    }
    let retirement = store.next_jobs();
    let write = request(append("new"), "3");
    let commit_points = store.write(&name("notes"), &write).unwrap().into_parts().1;
    retirement.into_iter().for_each(|job| store.finish(job.run()));
    disk.fail(Operation::Create, 1, Errno::NOSPC);
    for job in store.next_jobs() {
        store.finish(job.run());
    }
    assert!(matches!(store.is_durable(&commit_points), Err(StoreError::DiskFull { .. })));
    assert!(!ask(&mut store, "notes", &write).unwrap().is_replay);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "new");
}

/// The next worker finds a phext without text, and has no room for a new journal.
#[test]
fn a_delete_that_is_only_in_the_journal_neither_spins_nor_holds_up_the_end() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    ask(&mut store, "notes", &request(append("text"), "1")).unwrap();
    let _ = store.write(&name("notes"), &request(Edit::Remove, "2")).unwrap();
    store.next_jobs().into_iter().for_each(|job| store.finish(job.run()));
    drop(store);
    let disk = disk.kill();
    disk.remove(&FileName::Reserve).unwrap();
    disk.set_capacity_bytes(Some(0));
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    assert_eq!(store.read(&name("notes")).unwrap().into_inner_undurable().scroll_count(), 0);
    run_jobs(&mut store);
    assert!(
        store.next_wakeup().is_some_and(|wakeup| wakeup > Instant::now()),
        "it is tried again, and not at once"
    );
    close(store);
    disk.set_capacity_bytes(None);
    let mut store = on_sim(&disk.kill(), Tuning::DEFAULT);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "");
    assert!(ask(&mut store, "notes", &request(Edit::Remove, "2")).unwrap().is_replay);
}

#[test]
fn a_journal_that_could_not_be_removed_is_removed_later() {
    let disk = SimDisk::new(1);
    let tuning = Tuning { save_retry_delay: Duration::from_millis(1), ..Tuning::DEFAULT };
    let mut store = on_sim(&disk, tuning);
    // After the reserve and its journal. It leaves a key, and no text that would have to be saved.
    disk.fail(Operation::Create, 3, Errno::ACCESS);
    ask(&mut store, "notes", &request(Edit::Remove, "1")).unwrap();
    assert_eq!(names_of(&disk), ["notes.journal"]);
    while names_of(&disk) != [".keys"] {
        assert!(store.next_wakeup().is_some());
        run_jobs(&mut store);
    }
    assert!(store.is_idle() && store.next_wakeup().is_none());
}

#[test]
fn during_a_retirement_there_is_no_wakeup() {
    let disk = SimDisk::new(1);
    let tuning = Tuning { save_delay: Duration::ZERO, ..Tuning::DEFAULT };
    let mut store = on_sim(&disk, tuning);
    ask(&mut store, "notes", &request(append("text"), "1")).unwrap();
    let _ = store.write(&name("notes"), &request(Edit::Remove, "2")).unwrap();
    // The record is on its way, then the files.
    for _ in 0..2 {
        let jobs = store.next_jobs();
        assert_eq!((jobs.len(), store.next_wakeup()), (1, None));
        assert!(store.next_jobs().is_empty());
        jobs.into_iter().for_each(|job| store.finish(job.run()));
    }
    assert!(store.next_jobs().is_empty() && store.is_idle());
}

/// Journals full of keys that all have to go.
#[test]
fn many_keys_are_retired_in_parts_and_their_file_stays_short() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    for phext in 0..6 {
        put(&mut store, &format!("p{phext}"), ORIGIN, "text").unwrap();
        for number in 0..4200 {
            let nothing = Write { at: at("2.1.1/1.1.1/1.1.1"), ..request(Edit::Remove, &number.to_string()) };
            let _ = store.write(&name(&format!("p{phext}")), &nothing).unwrap();
            if number % 500 == 0 {
                run_jobs(&mut store);
            }
        }
        run_jobs(&mut store);
    }
    assert!(journals_bytes(&disk) > 6 * 4096 * 74);
    for phext in 0..6 {
        store.cache.open_mut(&name(&format!("p{phext}"))).unwrap().give_up_journal(Instant::now());
        store.cache.activate(&name(&format!("p{phext}")));
    }
    let mut most_bytes = 0;
    loop {
        let jobs = store.next_jobs();
        if jobs.is_empty() {
            break;
        }
        jobs.into_iter().for_each(|job| store.finish(job.run()));
        most_bytes = most_bytes.max(files(&disk)[".keys"]);
    }
    assert_eq!(journals_bytes(&disk), 0);
    assert!(most_bytes <= 3500 * KIB, "{most_bytes}");
    let last = Write { at: at("2.1.1/1.1.1/1.1.1"), ..request(Edit::Remove, "4199") };
    assert!(ask(&mut store, "p5", &last).unwrap().is_replay);
}

/// After an append that the disk refused, and before the next sync, the power goes: what is torn is no damage.
#[test]
fn keys_behind_refused_ones_are_torn_and_not_damaged() {
    let disk = SimDisk::new(1);
    let tuning = Tuning { save_retry_delay: Duration::ZERO, ..Tuning::DEFAULT };
    let mut store = on_sim(&disk, tuning);
    ask(&mut store, "first", &request(Edit::Remove, "1")).unwrap();
    for number in 0..200 {
        let _ = store.write(&name(&format!("n{number}")), &request(Edit::Remove, "2")).unwrap();
    }
    for job in store.next_jobs() {
        store.finish(job.run());
    }
    disk.fail(Operation::Write, 1, Errno::NOSPC);
    for job in store.next_jobs() {
        store.finish(job.run());
    }
    let retirement = store.next_jobs();
    assert_eq!(retirement.len(), 1);
    // The records are written, and not yet synced.
    disk.stop_after(1);
    retirement.into_iter().for_each(|job| drop(job.run()));
    for seed in 0..50 {
        let mut store = on_sim(&disk.crash(seed), tuning);
        for phext in ["first", "n0", "n63", "n199"] {
            let key = if phext == "first" { "1" } else { "2" };
            assert!(ask(&mut store, phext, &request(Edit::Remove, key)).unwrap().is_replay, "seed {seed}");
        }
    }
}

#[test]
fn a_replay_rests_on_its_own_write_and_not_on_later_ones() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    let write = request(append("first"), "1");
    ask(&mut store, "notes", &write).unwrap();
    let later = store.write(&name("notes"), &request(append("later"), "2")).unwrap().into_parts().1;
    let (written, commit_points) = store.write(&name("notes"), &write).unwrap().into_parts();
    disk.fail(Operation::Write, 1, Errno::NOSPC);
    run_jobs(&mut store);
    assert!(matches!(store.is_durable(&later), Err(StoreError::DiskFull { .. })));
    assert!(written.is_replay && store.are_durable(&commit_points));
}

#[test]
fn a_delete_is_seen_although_its_keys_cannot_be_stored() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    put(&mut store, "notes", ORIGIN, "text").unwrap();
    ask(&mut store, "other", &request(Edit::Remove, "1")).unwrap();
    close(store);
    let deleted = disk.bytes(&journal_file("notes"));
    assert!(deleted.is_some());
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    let _ = store.write(&name("notes"), &request(Edit::Remove, "2")).unwrap();
    store.next_jobs().into_iter().for_each(|job| store.finish(job.run()));
    drop(store);
    let disk = disk.kill();
    disk.replace_behind_our_back(&FileName::Keys, b"no keys");
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    let commit_points = store.read(&name("notes")).unwrap().into_parts().1;
    run_jobs(&mut store);
    assert!(store.are_durable(&commit_points));
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "");
    close(store);
}

/// One byte far out makes a file of hundreds of KiB. What is left to pay for the next one is known although nothing is left of
/// the phext in between.
#[test]
fn a_phext_that_is_created_and_deleted_again_pays_for_its_saves() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Tuning::DEFAULT);
    let far = at("99999.99999.99999/99999.99999.99999/99999.99999.99999");
    let (mut saved_bytes, mut file_bytes) = (0, 0);
    let rounds = 40;
    for _ in 0..rounds {
        for edit in [append("x"), Edit::Remove] {
            let write = Write { at: far, edit, expected: None, key: None };
            let commit_points = store.write(&name("notes"), &write).unwrap().into_parts().1;
            file_bytes = store.cache.open(&name("notes")).unwrap().phext().file_bytes().max(file_bytes);
            loop {
                let jobs = store.next_jobs();
                if jobs.is_empty() {
                    break;
                }
                for job in jobs {
                    if let Some(Work::WriteFile { phext: snapshot }) = job.work() {
                        saved_bytes += snapshot.file_bytes();
                    }
                    store.finish(job.run());
                }
            }
            assert!(store.are_durable(&commit_points));
        }
    }
    // Each write counts as 64 KiB, and pays for three times as much; the first save is free.
    let paid_bytes = 2 * rounds * 3 * SMALLEST_WRITE_BYTES + file_bytes;
    assert!(saved_bytes <= paid_bytes, "{saved_bytes} of {paid_bytes}");
    assert!(rounds * file_bytes > 2 * paid_bytes, "a save in each round would be no more");
}
