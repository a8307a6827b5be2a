//! A phext without text leaves no files, journals have little room, and no key is forgotten for it.

use super::foreign::write_behind_our_back;
use super::*;
use crate::store::disk::file_of;
use crate::store::keys::OF_ALL_PHEXTS;

const KIB: u64 = 1024;

fn request(edit: Edit, key: &str) -> Write {
    Write { at: at(ORIGIN), edit, expected: None, repeat: Some(RepeatKey::new(KeyOrigin::Client, key)) }
}

/// Asks for a write and waits for it, also for room.
fn ask(store: &mut Store, phext: &str, write: &Write) -> Result<Written, StoreError> {
    loop {
        match store.write(&name(phext), write) {
            Err(StoreError::NotYet) => run_jobs(store),
            result => {
                let (written, tickets) = result?.into_parts();
                run_jobs(store);
                assert!(store.is_settled(&tickets)?);
                return Ok(written);
            }
        }
    }
}

/// Every file of the directory but the reserve, by its name, with its bytes.
fn files(disk: &SimDisk) -> BTreeMap<String, u64> {
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

fn journals_bytes(disk: &SimDisk) -> u64 {
    files(disk).into_iter().filter(|(name, _)| name.ends_with(".journal")).map(|(_, bytes)| bytes).sum()
}

#[test]
fn a_phext_without_text_leaves_nothing_but_its_keys() {
    for pace in [Pace::DEFAULT, large(Duration::ZERO), unsaved()] {
        let disk = SimDisk::new(1);
        let mut store = on_sim(&disk, pace);
        let (insert, delete) = (request(append("abc"), "insert"), request(Edit::Remove, "delete"));
        let once = |bytes| Written { bytes, is_replay: false };
        assert_eq!(ask(&mut store, "notes", &insert).unwrap(), once(3));
        assert_eq!(ask(&mut store, "notes", &delete).unwrap(), once(3));
        assert_eq!(ask(&mut store, "never", &delete).unwrap(), once(0));
        assert_eq!(names_of(&disk), [".keys"]);
        assert_eq!((store.usage.phexts(), store.cache.count()), (Some(0), 0));
        let again = Written { bytes: 3, is_replay: true };
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
            let mut store = on_sim(&disk, pace);
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
    let mut store = on_sim(disk, Pace::DEFAULT);
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
            let mut store = on_sim(&after, Pace::DEFAULT);
            // The write that was struck may have been made.
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
fn journals_stay_within_the_quota_and_a_constant() {
    let pace = Pace { journals_bytes: 256 * KIB, ..Pace::DEFAULT };
    let quota_bytes = 64 * KIB;
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, pace);
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
    assert!(longest_bytes > pace.journals_bytes / 2, "the test is too small: {longest_bytes}");
    assert!(longest_bytes <= quota_bytes + pace.journals_bytes, "{longest_bytes}");
    close(store);
    let mut store = on_sim(&disk.kill(), pace);
    for phext in 0..16 {
        assert_eq!(scroll(&mut store, &format!("p{phext}"), ORIGIN), "x");
        let write = request(Edit::Replace("x".to_owned()), "0 1");
        assert!(ask(&mut store, &format!("p{phext}"), &write).unwrap().is_replay);
    }
}

#[test]
fn long_journals_of_phexts_that_are_not_in_memory_go_too() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Pace::DEFAULT);
    for phext in 0..20 {
        for text in [20_000, 1] {
            let write = request(Edit::Replace("x".repeat(text)), &text.to_string());
            ask(&mut store, &format!("p{phext}"), &write).unwrap();
        }
    }
    close(store);
    assert!(journals_bytes(&disk) > 400_000);
    let pace = Pace { journals_bytes: 64 * KIB, ..Pace::DEFAULT };
    let mut store = on_sim(&disk, pace);
    store.set_limits(Limits { quota_bytes: Some(20 * 4 * KIB), ..NO_LIMITS });
    // The account has been taken; the next one, which comes in time or before a refusal, looks for names.
    while ask(&mut store, "new", &request(append("text"), "key")).is_err()
        && journals_bytes(&disk) > pace.journals_bytes
    {}
    assert!(journals_bytes(&disk) <= pace.journals_bytes, "{:?}", files(&disk));
    for phext in 0..20 {
        let write = request(Edit::Replace("x".to_owned()), "1");
        assert!(ask(&mut store, &format!("p{phext}"), &write).unwrap().is_replay);
    }
}

#[test]
fn keys_alone_make_no_journal_long() {
    let pace = Pace { spent_journal_bytes: 4 * KIB, ..Pace::DEFAULT };
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, pace);
    put(&mut store, "notes", ORIGIN, "text").unwrap();
    for number in 0..6000 {
        let nothing = Write { at: at("2.1.1/1.1.1/1.1.1"), ..request(Edit::Remove, &number.to_string()) };
        assert!(!ask(&mut store, "notes", &nothing).unwrap().is_replay);
    }
    let journal_bytes = disk.bytes(&journal_file("notes")).unwrap().len() as u64;
    assert!(journal_bytes < 4096 * 74 + 5 * KIB, "{journal_bytes}");
}

#[test]
fn a_hundred_thousand_names_leave_the_last_keys_and_nothing_else() {
    const NAMES: usize = 100_000;
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Pace::DEFAULT);
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
        let mut store = on_sim(&disk, Pace::DEFAULT);
        let mut is_known = |number: usize| ask(&mut store, &number.to_string(), &delete).unwrap().is_replay;
        assert!(is_known(NAMES - OF_ALL_PHEXTS.clients) && is_known(NAMES - 1));
        assert!(!is_known(NAMES - OF_ALL_PHEXTS.clients - 1));
    }
    let bytes = files(&disk)[".keys"];
    assert!(bytes < OF_ALL_PHEXTS.clients as u64 * 74 + 1100 * KIB, "{bytes}");
}

#[test]
fn keys_that_are_damaged_stop_writes_and_no_reads() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Pace::DEFAULT);
    put(&mut store, "notes", ORIGIN, "text").unwrap();
    for key in ["1", "2"] {
        ask(&mut store, "gone", &request(Edit::Remove, key)).unwrap();
    }
    close(store);
    let mut bytes = disk.bytes(&FileName::Keys).unwrap();
    bytes[80] ^= 1;
    disk.replace_behind_our_back(&FileName::Keys, &bytes);
    let mut store = on_sim(&disk, Pace::DEFAULT);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "text");
    let refused = ask(&mut store, "notes", &request(append("more"), "3"));
    assert!(matches!(refused, Err(StoreError::Damaged(Damage::Keys(_)))), "{refused:?}");
    close(store);
}

#[test]
fn files_that_cannot_go_are_tried_again_and_the_delete_counts() {
    for operation in [Operation::Create, Operation::Remove, Operation::Rename] {
        let disk = SimDisk::new(1);
        let pace = Pace { full_disk_delay: Duration::ZERO, ..Pace::DEFAULT };
        let mut store = on_sim(&disk, pace);
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
            let mut store = on_sim(&disk, pace);
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
fn what_is_written_while_its_files_go_has_files_of_its_own() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, Pace::DEFAULT);
    ask(&mut store, "notes", &request(append("text"), "1")).unwrap();
    let _ = store.write(&name("notes"), &request(Edit::Remove, "2")).unwrap();
    for job in store.next_jobs() {
        store.finish(job.run());
    }
    let retirement = store.next_jobs();
    assert_eq!(retirement.len(), 1);
    let tickets = store.write(&name("notes"), &request(append("new"), "3")).unwrap().into_parts().1;
    assert!(!store.has_settled(&tickets));
    let done: Vec<_> = retirement.into_iter().map(Job::run).collect();
    assert_eq!(saved(&disk, "notes"), None);
    // That its file is gone is no edit of another program.
    let _ = store.write(&name("notes"), &request(append("er"), "4")).unwrap();
    assert_eq!(in_memory(&store, "notes"), "newer");
    done.into_iter().for_each(|done| store.finish(done));
    run_jobs(&mut store);
    assert!(store.has_settled(&tickets));
    for disk in [disk.kill(), disk.crash(1)] {
        let mut store = on_sim(&disk, Pace::DEFAULT);
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "newer");
        for (edit, key) in
            [(append("text"), "1"), (Edit::Remove, "2"), (append("new"), "3"), (append("er"), "4")]
        {
            assert!(ask(&mut store, "notes", &request(edit, key)).unwrap().is_replay);
        }
    }
}

#[test]
fn the_key_of_a_write_that_came_meanwhile_and_was_refused_is_free() {
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    ask(&mut store, "notes", &request(append("text"), "1")).unwrap();
    let _ = store.write(&name("notes"), &request(Edit::Remove, "2")).unwrap();
    for job in store.next_jobs() {
        store.finish(job.run());
    }
    let retirement = store.next_jobs();
    let write = request(append("new"), "3");
    let tickets = store.write(&name("notes"), &write).unwrap().into_parts().1;
    retirement.into_iter().for_each(|job| store.finish(job.run()));
    disk.fail(Operation::Create, 1, Errno::NOSPC);
    for job in store.next_jobs() {
        store.finish(job.run());
    }
    assert!(matches!(store.is_settled(&tickets), Err(StoreError::DiskFull { .. })));
    assert!(!ask(&mut store, "notes", &write).unwrap().is_replay);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "new");
}
