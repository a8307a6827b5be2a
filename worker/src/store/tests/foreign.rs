//! Files that another program writes, restores, touches or removes.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

fn file(dir: &Path, phext: &str) -> std::path::PathBuf {
    sq_shared::layout::phext_file(dir, &name(phext))
}

fn now_us() -> i128 {
    i128::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

fn changed_us(path: &Path) -> i128 {
    let metadata = fs::metadata(path).unwrap();
    i128::from(metadata.ctime()) * 1_000_000 + i128::from(metadata.ctime_nsec()) / 1000
}

/// Another program writes the file; by the kernel's clock for files, which goes in steps, that is after now.
pub(super) fn write_behind_our_back(path: &Path, text: &str) {
    let now = now_us();
    fs::write(path, text).unwrap();
    while changed_us(path) <= now {
        fs::write(path, text).unwrap();
    }
    // And whatever comes next comes after it.
    while now_us() <= changed_us(path) {}
}

#[test]
fn reads_of_one_tick_share_a_stat_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "notes");
    let tick = LoopTick::without_expiry();
    let mut store = open(dir.path()).with_loop_tick(tick.clone());
    // Longer each time: the length is what shows an edit within one step of the clock for files.
    fs::write(&path, "1").unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "1");
    fs::write(&path, "22").unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "1");
    tick.end();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "22");
    fs::write(&path, "333").unwrap();
    store.load(&name("notes")).unwrap().into_inner_undurable();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "333");
    fs::write(&path, "4444").unwrap();
    write(&mut store, "notes", at(ORIGIN), append("!")).unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "4444!");
    fs::remove_file(&path).unwrap();
    tick.end();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "");
}

#[test]
fn a_read_of_the_same_tick_sees_damage_and_evicted_phexts() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "notes");
    let mut store = open(dir.path()).with_loop_tick(LoopTick::without_expiry());
    fs::write(&path, "text").unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "text");
    // Others evict it.
    for index in 0..=OPEN_PHEXTS {
        fs::write(file(dir.path(), &index.to_string()), "other").unwrap();
        assert_eq!(scroll(&mut store, &index.to_string(), ORIGIN), "other");
    }
    fs::write(&path, b"not UTF-8: \xff").unwrap();
    assert!(matches!(store.read(&name("notes")), Err(StoreError::Damaged(_))));
    fs::write(&path, "mended").unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "mended");
}

#[test]
fn writes_that_are_older_than_another_programs_file_do_not_come_back() {
    for is_running in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "notes");
        fs::write(&path, "first").unwrap();
        let mut store = open_at(dir.path(), unsaved());
        put(&mut store, "notes", ORIGIN, "ours").unwrap();
        if !is_running {
            drop(store);
            write_behind_our_back(&path, "theirs");
            store = open_at(dir.path(), unsaved());
        } else {
            write_behind_our_back(&path, "theirs");
        }
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "theirs");
        run_jobs(&mut store);
        drop(store);
        let mut store = open_at(dir.path(), unsaved());
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "theirs");
        write(&mut store, "notes", at(ORIGIN), append("!")).unwrap();
        drop(store);
        let mut store = open_at(dir.path(), unsaved());
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "theirs!");
        close(store);
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs!");
    }
}

#[test]
fn a_disk_whose_clock_is_behind_keeps_every_unsaved_write() {
    // The files of this disk are years older than the writes.
    let disk = SimDisk::new(1);
    let mut store = on_sim(&disk, unsaved());
    put(&mut store, "notes", ORIGIN, "ours").unwrap();
    disk.replace_behind_our_back(&phext_file("notes"), b"theirs, \x17second");
    write(&mut store, "notes", at("1.1.1/1.1.1/1.1.2"), append("!")).unwrap();
    let expected = "ours\x17second!";
    for disk in [disk.kill(), disk.crash(1)] {
        let mut store = on_sim(&disk, unsaved());
        assert_eq!(store.read(&name("notes")).unwrap().into_inner_undurable().join(), expected);
        run_jobs(&mut store);
        close(store);
        assert_eq!(saved(&disk, "notes").unwrap(), expected);
    }
}

#[test]
fn a_backup_that_comes_back_is_the_truth() {
    for is_running in [true, false] {
        for earlier in ["one", "one two", "none of ours"] {
            let dir = tempfile::tempdir().unwrap();
            let path = file(dir.path(), "notes");
            let mut store = open(dir.path());
            for text in ["one", " two", " three"] {
                write(&mut store, "notes", at(ORIGIN), append(text)).unwrap();
            }
            if is_running {
                write_behind_our_back(&path, earlier);
            } else {
                drop(store);
                write_behind_our_back(&path, earlier);
                store = open(dir.path());
            }
            assert_eq!(scroll(&mut store, "notes", ORIGIN), earlier);
            run_jobs(&mut store);
            assert_eq!(fs::read_to_string(&path).unwrap(), earlier);
            write(&mut store, "notes", at(ORIGIN), append("!")).unwrap();
            drop(store);
            let mut store = open(dir.path());
            assert_eq!(scroll(&mut store, "notes", ORIGIN), format!("{earlier}!"));
            run_jobs(&mut store);
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{earlier}!"));
        }
    }
}

#[test]
fn the_same_bytes_are_no_change() {
    for is_running in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "notes");
        fs::write(&path, "first").unwrap();
        let mut store = open_at(dir.path(), unsaved());
        write(&mut store, "notes", at(ORIGIN), append(", ours")).unwrap();
        if !is_running {
            drop(store);
            write_behind_our_back(&path, "first");
            store = open_at(dir.path(), unsaved());
        } else {
            write_behind_our_back(&path, "first");
        }
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "first, ours");
        let commit_points = begin(&mut store, "notes", ORIGIN, append("!"));
        run_jobs(&mut store);
        assert!(store.are_durable(&commit_points));
        close(store);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first, ours!");
    }
}

#[test]
fn a_touch_makes_nothing_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "notes");
    let mut store = open(dir.path());
    put(&mut store, "notes", ORIGIN, "abc").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(store.read(&name("notes")).unwrap().into_parts().1.is_empty());
    assert!(store.next_jobs().is_empty());
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "abc");
}

#[test]
fn nothing_of_a_removed_file_comes_back() {
    for is_running in [true, false] {
        for tuning in [Tuning::DEFAULT, unsaved()] {
            let dir = tempfile::tempdir().unwrap();
            let path = file(dir.path(), "notes");
            fs::write(&path, "first").unwrap();
            let mut store = open_at(dir.path(), tuning);
            put(&mut store, "notes", ORIGIN, "ours").unwrap();
            if !is_running {
                drop(store);
                fs::remove_file(&path).unwrap();
                store = open_at(dir.path(), tuning);
            } else {
                fs::remove_file(&path).unwrap();
            }
            assert_eq!(scroll(&mut store, "notes", ORIGIN), "");
            assert!(list(&mut store).is_empty());
            run_jobs(&mut store);
            assert!(!path.exists());
            drop(store);
            let mut store = open_at(dir.path(), tuning);
            assert_eq!(scroll(&mut store, "notes", ORIGIN), "");
            put(&mut store, "notes", "1.1.1/1.1.1/1.1.2", "new").unwrap();
            drop(store);
            let mut store = open_at(dir.path(), tuning);
            assert_eq!(store.read(&name("notes")).unwrap().into_inner_undurable().join(), "\x17new");
            close(store);
            assert_eq!(fs::read_to_string(&path).unwrap(), "\x17new");
        }
    }
}

#[test]
fn damage_by_another_program_goes_when_the_file_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "notes");
    let mut store = open(dir.path());
    put(&mut store, "notes", ORIGIN, "ours").unwrap();
    fs::write(&path, b"\xff").unwrap();
    assert!(matches!(store.read(&name("notes")), Err(StoreError::Damaged(_))));
    assert_eq!(list(&mut store)[0].scrolls, None);
    fs::write(&path, "ours").unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "ours");
    write(&mut store, "notes", at(ORIGIN), append("!")).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "ours!");
}
