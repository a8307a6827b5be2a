//! A `.phext` file that is a link.

use std::os::unix::fs::symlink;

use super::*;
use crate::store::links::BadLink;

fn link(dir: &Path, from: &str, to: impl AsRef<Path>) {
    symlink(to, dir.join(format!("{from}.phext"))).unwrap();
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
    assert_eq!(store.usage.used_bytes(None), 4096);
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
fn a_repeat_is_known_where_a_link_has_taken_its_phexts_place() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let insert = || Write {
        at: at(ORIGIN),
        edit: append("once"),
        expected: None,
        repeat: Some(RepeatKey::new(KeyOrigin::Client, "key")),
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
        ("pipe", Path::new("folder/folder.phext"), BadLink::Missing),
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
    let mut store = open(dir);
    assert!(!folder.join("notes.phext.tmp").exists());
    assert_eq!(store.usage.used_bytes(None), 4096);
    let links = ["", "absolute", "relative", "through"];
    for (number, phext) in links.iter().enumerate() {
        let text = format!("through {number}");
        put(&mut store, phext, ORIGIN, &text).unwrap();
        links.iter().for_each(|other| assert_eq!(scroll(&mut store, other, ORIGIN), text));
    }
    // Its journal is beside it, and a client knows it by its links alone.
    assert!(folder.join("notes.journal").exists() && !dir.join("relative.journal").exists());
    let rows = |store: &mut Store| -> Vec<_> {
        list(store).iter().map(|row| (row.name.as_str().to_owned(), row.bytes, row.scrolls)).collect()
    };
    let all = |bytes, scrolls| links.map(|name| (name.to_owned(), bytes, Some(scrolls)));
    assert_eq!(rows(&mut store), all(11, 2));
    close(store);
    assert_eq!(fs::read_to_string(folder.join("notes.phext")).unwrap(), "through 3\x17b");
    assert_eq!(scroll(&mut open(dir), "through", ORIGIN), "through 3");
    assert!(links.iter().all(|link| is_link(dir, link)));
}

#[test]
fn a_phext_in_a_folder_that_is_emptied_keeps_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let file = dir.join("folder/notes.phext");
    fs::create_dir(dir.join("folder")).unwrap();
    // As the operator makes a new one.
    fs::write(&file, "").unwrap();
    link(dir, "notes", "folder/notes.phext");
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
fn a_phext_in_a_folder_that_goes_is_not_empty() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (folder, away) = (&dir.join("folder"), &dir.join("away"));
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("notes.phext"), "text").unwrap();
    link(dir, "notes", "folder/notes.phext");
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
    // With a save under way.
    put(&mut store, "notes", ORIGIN, "more").unwrap();
    fs::rename(folder, away).unwrap();
    run_jobs(&mut store);
    assert!(!store.is_in_doubt());
    assert_eq!(refused(&mut store, "notes"), BadLink::Missing);
    fs::rename(away, folder).unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "more");
    // The text goes alone, and comes back.
    put(&mut store, "notes", ORIGIN, "most").unwrap();
    let (text, elsewhere) = (folder.join("notes.phext"), dir.join("elsewhere"));
    fs::rename(&text, &elsewhere).unwrap();
    run_jobs(&mut store);
    close(store);
    store = open(dir);
    assert_eq!(refused(&mut store, "notes"), BadLink::Missing);
    fs::rename(&elsewhere, &text).unwrap();
    assert_eq!(scroll(&mut store, "notes", ORIGIN), "most");
    close(store);
    assert_eq!(fs::read_to_string(text).unwrap(), "most");
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
