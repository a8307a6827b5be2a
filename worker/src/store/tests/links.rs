//! A `.phext` file that is a link.

use std::os::unix::fs::symlink;

use super::*;
use crate::store::links::BadLink;

fn link(dir: &Path, from: &str, to: impl AsRef<Path>) {
    symlink(to, dir.join(format!("{from}.phext"))).unwrap();
}

/// A phext in a folder, and the link `notes` to it.
fn make_in_folder(dir: &Path, text: &str) {
    fs::create_dir(dir.join("folder")).unwrap();
    fs::write(dir.join("folder/notes.phext"), text).unwrap();
    link(dir, "notes", "folder/notes.phext");
}

fn refused(store: &mut Store, phext: &str) -> BadLink {
    match store.read(&name(phext)).unwrap_err() {
        StoreError::Damaged(Damage::Link(why)) => why,
        error => panic!("{error}"),
    }
}

fn is_link(dir: &Path, phext: &str) -> bool {
    dir.join(format!("{phext}.phext")).symlink_metadata().unwrap().is_symlink()
}

/// Every way to name a file of the directory from within it.
fn ways(dir: &Path, target: &str) -> Vec<std::path::PathBuf> {
    let real = dir.canonicalize().unwrap();
    let folder = dir.file_name().unwrap();
    vec![
        target.into(),
        Path::new(".").join(target),
        Path::new("folder/..").join(target),
        dir.join(target),
        real.join("folder/../folder/..").join(target),
        real.join("..").join(folder).join(target),
    ]
}

#[test]
fn two_names_of_one_phext_have_one_text() {
    let outer = tempfile::tempdir().unwrap();
    let dir = &outer.path().join("tenant");
    fs::create_dir_all(dir.join("folder")).unwrap();
    let mut store = open(dir);
    put(&mut store, "notes", ORIGIN, "own").unwrap();
    // The last way leaves the directory, though it comes back.
    let ways = ways(dir, "notes.phext");
    let (inside, outside) = ways.split_at(ways.len() - 1);
    for (number, way) in inside.iter().enumerate() {
        let (phext, text) = (format!("link{number}"), format!("through {number}"));
        link(dir, &phext, way);
        assert_ne!(scroll(&mut store, &phext, ORIGIN), "");
        put(&mut store, &phext, ORIGIN, &text).unwrap();
        assert_eq!(scroll(&mut store, "notes", ORIGIN), text, "{}", way.display());
        link(dir, &format!("chain{number}"), format!("{phext}.phext"));
        assert_eq!(scroll(&mut store, &format!("chain{number}"), ORIGIN), text);
        assert!(is_link(dir, &phext));
    }
    link(dir, "outside", &outside[0]);
    assert_eq!(refused(&mut store, "outside"), BadLink::Outside);
    let last = scroll(&mut store, "notes", ORIGIN);
    close(store);
    assert_eq!(fs::read_to_string(dir.join("notes.phext")).unwrap(), last);
    assert!(is_link(dir, "link0") && is_link(dir, "chain0"));
    assert_eq!(scroll(&mut open(dir), "chain1", ORIGIN), last);
}

#[test]
fn a_phext_is_listed_and_emptied_by_each_of_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("notes.phext"), "a\x17b").unwrap();
    link(dir, "other", "notes.phext");
    let mut store = open(dir);
    // One phext, which takes a block.
    assert_eq!(store.usage.used_bytes(), 4096);
    let rows = |store: &mut Store| -> Vec<_> {
        list(store).iter().map(|row| (row.name.as_str().to_owned(), row.bytes, row.scrolls)).collect()
    };
    let row = |name: &str, bytes| (name.to_owned(), bytes, Some(3));
    put(&mut store, "other", "1.1.1/1.1.1/1.1.3", "c").unwrap();
    assert_eq!(rows(&mut store), [row("notes", 5), row("other", 5)]);
    // What is in memory and in the journal alone is listed under each name as well.
    put(&mut store, "notes", "1.1.1/1.1.1/1.1.3", "longer").unwrap();
    assert_eq!(rows(&mut store), [row("notes", 10), row("other", 10)]);
    for scroll in 1..=3 {
        write(&mut store, "other", at(&format!("1.1.1/1.1.1/1.1.{scroll}")), Edit::Remove).unwrap();
    }
    close(store);
    let mut store = open(dir);
    assert_eq!(scroll(&mut store, "other", ORIGIN), "");
    put(&mut store, "other", ORIGIN, "again").unwrap();
    close(store);
    assert_eq!(fs::read_to_string(dir.join("notes.phext")).unwrap(), "again");
    assert!(is_link(dir, "other"));
}

/// The operator puts a link where a phext was: the keys of its writes are known by its name still.
#[test]
fn a_replay_is_known_after_a_link_has_replaced_the_phexts_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let insert = || Write {
        at: at(ORIGIN),
        edit: append("once"),
        expected: None,
        key: Some(WriteKey::new(KeyOrigin::Client, "key")),
    };
    let mut store = open(dir);
    let (written, _) = store.write(&name("notes"), &insert()).unwrap().into_parts();
    assert!(!written.is_replay);
    run_jobs(&mut store);
    write(&mut store, "notes", at(ORIGIN), Edit::Remove).unwrap();
    close(store);
    assert!(!dir.join("notes.journal").exists(), "the journal has not gone");
    link(dir, "notes", "moved.phext");
    let mut store = open(dir);
    let repeated = loop {
        match store.write(&name("notes"), &insert()) {
            Err(StoreError::NotYet) => run_jobs(&mut store),
            written => break written.unwrap().into_parts().0,
        }
    };
    assert!(repeated.is_replay);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "");
    close(store);
}

#[test]
fn a_link_that_leads_out_or_to_no_phext_is_refused() {
    let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = dir.path();
    fs::write(outside.path().join("theirs.phext"), "theirs").unwrap();
    fs::create_dir(dir.join("folder")).unwrap();
    fs::write(dir.join("text.txt"), "text").unwrap();
    fs::create_dir(dir.join("folder/folder.phext")).unwrap();
    symlink(outside.path(), dir.join("way-out")).unwrap();
    let theirs = outside.path().join("theirs.phext");
    let mut store = open(dir);
    for (phext, target, expected) in [
        ("absolute", theirs.as_path(), BadLink::Outside),
        ("upward", Path::new("../theirs.phext"), BadLink::Outside),
        ("root", Path::new("/"), BadLink::Outside),
        ("folder", Path::new("way-out/theirs.phext"), BadLink::Outside),
        // It may be a disk that is not mounted.
        ("inside", Path::new("folder/other.phext"), BadLink::Missing),
        ("absent", Path::new("absent/notes.phext"), BadLink::Missing),
        ("no-folder", Path::new("text.txt/notes.phext"), BadLink::Missing),
        ("no-file", Path::new("folder/folder.phext"), BadLink::Missing),
        ("text", Path::new("text.txt"), BadLink::NoPhext),
        ("self", Path::new("self.phext"), BadLink::NoPhext),
        ("hidden", Path::new("folder/.hidden.phext"), BadLink::NoPhext),
        ("directory", Path::new("."), BadLink::NoPhext),
        ("reserve", Path::new(".reserve"), BadLink::NoPhext),
    ] {
        link(dir, phext, target);
        assert_eq!(refused(&mut store, phext), expected, "{phext}");
        assert!(put(&mut store, phext, ORIGIN, "x").is_err());
    }
    close(store);
    assert_eq!(fs::read_to_string(theirs).unwrap(), "theirs");
}

#[test]
fn a_phext_in_a_folder_is_one_like_the_others() {
    let outer = tempfile::tempdir().unwrap();
    let dir = &outer.path().join("tenant");
    let folder = &dir.join("years/2026");
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("notes.phext"), "a\x17b").unwrap();
    fs::write(folder.join("notes.phext.tmp"), "left over").unwrap();
    symlink("years/2026", dir.join("now")).unwrap();
    link(dir, "relative", "years/2026/notes.phext");
    link(dir, "absolute", folder.join("notes.phext"));
    link(dir, "through", "now/../2026/notes.phext");
    link(dir, "", "relative.phext");
    // Another one has the same name.
    fs::write(dir.join("notes.phext"), "own").unwrap();
    let mut store = open(dir);
    assert_eq!((store.usage.used_bytes(), store.usage.phexts()), (8192, Some(2)));
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "own");
    let links = ["", "absolute", "relative", "through"];
    for (number, phext) in links.iter().enumerate() {
        let text = format!("through {number}");
        put(&mut store, phext, ORIGIN, &text).unwrap();
        links.iter().for_each(|other| assert_eq!(scroll(&mut store, other, ORIGIN), text));
    }
    assert!(!folder.join("notes.phext.tmp").exists());
    // Its journal is beside it, and a client knows it by its links alone.
    assert!(folder.join("notes.journal").exists() && !dir.join("relative.journal").exists());
    let rows = |store: &mut Store| -> Vec<_> {
        list(store).iter().map(|row| (row.name.as_str().to_owned(), row.bytes, row.scrolls)).collect()
    };
    let row = |name: &str, bytes, scrolls| (name.to_owned(), bytes, Some(scrolls));
    let mut expected: Vec<_> =
        links.iter().map(|name| row(name, 11, 2)).chain([row("notes", 3, 1)]).collect();
    expected.sort();
    assert_eq!(rows(&mut store), expected);
    close(store);
    assert_eq!(fs::read_to_string(dir.join("notes.phext")).unwrap(), "own");
    assert_eq!(fs::read_to_string(folder.join("notes.phext")).unwrap(), "through 3\x17b");
    assert_eq!(scroll(&mut open(dir), "through", ORIGIN), "through 3");
    assert!(links.iter().all(|link| is_link(dir, link)));
}

#[test]
fn a_phext_in_a_folder_that_is_emptied_keeps_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let file = dir.join("folder/notes.phext");
    // As the operator makes a new one.
    make_in_folder(dir, "");
    let mut store = open(dir);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "");
    for _ in 0..2 {
        put(&mut store, "notes", ORIGIN, "text").unwrap();
        close(store);
        assert_eq!(fs::read_to_string(&file).unwrap(), "text");
        store = open(dir);
        write(&mut store, "notes", at(ORIGIN), Edit::Remove).unwrap();
        close(store);
        assert_eq!(fs::read_to_string(&file).unwrap(), "");
        store = open(dir);
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "");
    }
}

/// Its disk may not be mounted.
#[test]
fn a_phext_in_a_folder_that_is_removed_is_not_empty() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (folder, away) = (&dir.join("folder"), &dir.join("away"));
    make_in_folder(dir, "text");
    let mut store = open(dir);
    put(&mut store, "other", ORIGIN, "other").unwrap();
    put(&mut store, "notes", ORIGIN, "acknowledged").unwrap();
    for is_empty_folder_left in [false, true] {
        fs::rename(folder, away).unwrap();
        if is_empty_folder_left {
            fs::create_dir(folder).unwrap();
        }
        assert_eq!(refused(&mut store, "notes"), BadLink::Missing);
        assert!(put(&mut store, "notes", ORIGIN, "lost").is_err());
        assert_eq!(scroll(&mut store, "other", ORIGIN), "other");
        if is_empty_folder_left {
            assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
            fs::remove_dir(folder).unwrap();
        }
        fs::rename(away, folder).unwrap();
        assert_eq!(scroll(&mut store, "notes", ORIGIN), "acknowledged");
    }
    close(store);
    assert_eq!(fs::read_to_string(folder.join("notes.phext")).unwrap(), "acknowledged");
}

/// It goes before any of the steps that a write takes on the disk, and comes back with the next worker or before.
#[test]
fn a_folder_that_is_removed_during_a_write_loses_nothing_acknowledged() {
    for (step, tuning) in (0..6).flat_map(|step| [(step, Tuning::DEFAULT), (step, large(Duration::ZERO))]) {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (folder, away) = (&dir.join("folder"), &dir.join("away"));
        make_in_folder(dir, "text");
        let mut store = open_at(dir, tuning);
        let commit_points = begin(&mut store, "notes", ORIGIN, append(", more"));
        let (mut steps, mut is_away) = (0, false);
        loop {
            let jobs = store.next_jobs();
            if jobs.is_empty() || store.is_in_doubt() {
                break;
            }
            for job in jobs {
                if steps == step {
                    fs::rename(folder, away).unwrap();
                    is_away = true;
                }
                steps += 1;
                store.finish(job.run());
            }
            if steps > 50 {
                break;
            }
        }
        let is_settled = store.is_durable(&commit_points).is_ok_and(|is_settled| is_settled);
        if is_away && !store.is_in_doubt() {
            assert_eq!(refused(&mut store, "notes"), BadLink::Missing);
        }
        drop(store);
        if is_away {
            fs::rename(away, folder).unwrap();
        }
        let found = scroll(&mut open(dir), "notes", ORIGIN);
        let may_be = if is_settled { &["text, more"][..] } else { &["text", "text, more"] };
        assert!(may_be.contains(&found.as_str()), "step {step}, {tuning:?}: {found} of {may_be:?}");
        assert!(is_away || step > 2, "there are {steps} steps");
    }
}

/// Its journal has writes that the text has not.
#[test]
fn a_text_that_is_removed_alone_is_missed_and_its_journal_stays() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (text, elsewhere) = (dir.join("folder/notes.phext"), dir.join("elsewhere"));
    make_in_folder(dir, "text");
    let mut store = open_at(dir, unsaved());
    put(&mut store, "notes", ORIGIN, "in the journal").unwrap();
    fs::rename(&text, &elsewhere).unwrap();
    assert_eq!(refused(&mut store, "notes"), BadLink::Missing);
    // The worker ends meanwhile, and cannot save it.
    store.close();
    run_jobs(&mut store);
    drop(store);
    let mut store = open(dir);
    assert_eq!(refused(&mut store, "notes"), BadLink::Missing);
    fs::rename(&elsewhere, &text).unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "in the journal");
}

#[test]
fn a_folder_that_gets_another_name_and_its_own_again_has_one_journal() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (old, new) = (&dir.join("old"), &dir.join("new"));
    fs::create_dir(old).unwrap();
    fs::write(old.join("notes.phext"), "").unwrap();
    link(dir, "in-old", "old/notes.phext");
    link(dir, "in-new", "new/notes.phext");
    let mut store = open_at(dir, unsaved());
    let mut expected = String::new();
    for number in 0..4 {
        let [here, there] = if number % 2 == 0 { ["in-old", "in-new"] } else { ["in-new", "in-old"] };
        let text = format!("{number}, ");
        write(&mut store, here, at(ORIGIN), append(&text)).unwrap();
        expected += &text;
        assert_eq!(refused(&mut store, there), BadLink::Missing);
        let (from, to) = if number % 2 == 0 { (old, new) } else { (new, old) };
        fs::rename(from, to).unwrap();
        assert_eq!(scroll(&mut store, there, ORIGIN), expected);
    }
    close(store);
    assert_eq!(scroll(&mut open(dir), "in-old", ORIGIN), expected);
}

#[test]
fn a_file_with_names_in_two_folders_is_two_phexts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for folder in ["one", "two"] {
        fs::create_dir(dir.join(folder)).unwrap();
        link(dir, folder, format!("{folder}/notes.phext"));
    }
    fs::write(dir.join("one/notes.phext"), "text").unwrap();
    fs::hard_link(dir.join("one/notes.phext"), dir.join("two/notes.phext")).unwrap();
    let mut store = open_at(dir, unsaved());
    assert_eq!(scroll(&mut store, "one", ORIGIN), "text");
    let commit_points = begin(&mut store, "one", ORIGIN, append(", more"));
    assert_eq!(scroll(&mut store, "two", ORIGIN), "text");
    run_jobs(&mut store);
    assert!(store.are_durable(&commit_points));
    assert_eq!(
        [scroll(&mut store, "one", ORIGIN), scroll(&mut store, "two", ORIGIN)],
        ["text, more", "text"]
    );
    close(store);
    assert_eq!(fs::read_to_string(dir.join("two/notes.phext")).unwrap(), "text");
}

#[test]
fn a_journal_beside_any_link_on_the_way_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("folder")).unwrap();
    fs::create_dir(dir.join("archive")).unwrap();
    link(dir, "month", "folder/kept.phext");
    fs::write(dir.join("folder/kept.phext"), "text").unwrap();
    let mut store = open_at(dir, unsaved());
    put(&mut store, "month", ORIGIN, "in the journal").unwrap();
    drop(store);
    fs::rename(dir.join("folder/kept.phext"), dir.join("archive/kept.phext")).unwrap();
    symlink("../archive/kept.phext", dir.join("folder/kept.phext")).unwrap();
    let mut store = open(dir);
    assert_eq!(refused(&mut store, "month"), BadLink::BesideJournal);
    fs::rename(dir.join("folder/kept.journal"), dir.join("archive/kept.journal")).unwrap();
    assert_eq!(scroll(&mut store, "month", ORIGIN), "in the journal");
}

/// The operator moves a phext that is in memory, and leaves a link.
#[test]
fn a_phext_that_becomes_a_link_keeps_what_its_journal_has() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut store = open(dir);
    put(&mut store, "notes", ORIGIN, "saved").unwrap();
    close(store);
    let mut store = open(dir);
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "saved");
    fs::rename(dir.join("notes.phext"), dir.join("moved.phext")).unwrap();
    link(dir, "notes", "moved.phext");
    if dir.join("notes.journal").exists() {
        assert_eq!(refused(&mut store, "notes"), BadLink::BesideJournal);
        assert!(put(&mut store, "notes", ORIGIN, "x").is_err());
        fs::remove_file(dir.join("notes.journal")).unwrap();
    }
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "saved");
    put(&mut store, "notes", ORIGIN, "through the link").unwrap();
    close(store);
    assert_eq!(fs::read_to_string(dir.join("moved.phext")).unwrap(), "through the link");
}
