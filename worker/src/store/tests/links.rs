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
fn a_phext_in_a_folder_is_read_written_emptied_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("old")).unwrap();
    fs::write(dir.join("old/notes.phext"), "a\x17b").unwrap();
    link(dir, "notes", "old/notes.phext");
    link(dir, "other", "notes.phext");
    let mut store = open(dir);
    // One phext, which takes a block.
    assert_eq!(store.usage.used_bytes(None), 4096);
    put(&mut store, "other", "1.1.1/1.1.1/1.1.3", "c").unwrap();
    assert_eq!(store.read(&name("notes")).unwrap().into_parts().0.join(), "a\x17b\x17c");
    let rows = list(&mut store);
    let rows: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.bytes, row.scrolls)).collect();
    assert_eq!(rows, [("notes", 5, Some(3)), ("other", 5, Some(3))]);
    close(store);
    assert_eq!(fs::read_to_string(dir.join("old/notes.phext")).unwrap(), "a\x17b\x17c");
    let mut store = open(dir);
    for scroll in 1..=3 {
        write(&mut store, "notes", at(&format!("1.1.1/1.1.1/1.1.{scroll}")), Edit::Remove).unwrap();
    }
    assert_eq!(scroll(&mut store, "other", ORIGIN), "");
    close(store);
    let mut store = open(dir);
    assert_eq!(scroll(&mut store, "other", ORIGIN), "");
    put(&mut store, "other", ORIGIN, "again").unwrap();
    close(store);
    assert_eq!(fs::read_to_string(dir.join("old/notes.phext")).unwrap(), "again");
    assert!(is_link(dir, "notes") && is_link(dir, "other"));
}

#[test]
fn a_link_that_leads_out_or_to_no_phext_is_refused() {
    let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = dir.path();
    fs::write(outside.path().join("theirs.phext"), "theirs").unwrap();
    fs::create_dir(dir.join("folder")).unwrap();
    fs::write(dir.join("text.txt"), "text").unwrap();
    symlink(outside.path(), dir.join("way-out")).unwrap();
    let theirs = outside.path().join("theirs.phext");
    let mut store = open(dir);
    for (phext, target, expected) in [
        ("absolute", theirs.as_path(), BadLink::Outside),
        ("upward", Path::new("../theirs.phext"), BadLink::Outside),
        ("root", Path::new("/"), BadLink::Outside),
        ("folder", Path::new("way-out/theirs.phext"), BadLink::Outside),
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
    // The disk that the folder is on is not there.
    link(dir, "absent", "absent/notes.phext");
    assert!(matches!(store.read(&name("absent")).unwrap_err(), StoreError::Io(_)));
    close(store);
    assert_eq!(fs::read_to_string(theirs).unwrap(), "theirs");
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
