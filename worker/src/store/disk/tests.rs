//! What the real disk and the simulated one do alike.

use std::io::ErrorKind;

use super::os::{DataDirectory, OsDisk};
use super::sim::SimDisk;
use super::*;

pub(super) fn name(text: &str) -> PhextName {
    PhextName::parse(text).unwrap()
}

pub(super) fn phext(text: &str) -> FileName {
    FileName::Phext(name(text))
}

pub(super) fn journal(text: &str) -> FileName {
    FileName::Journal(name(text))
}

pub(super) fn read(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.identity().unwrap().bytes).unwrap()];
    let mut done = 0;
    while done < bytes.len() {
        let count = file.read_at(&mut bytes[done..], u64::try_from(done).unwrap()).unwrap();
        assert_ne!(count, 0, "the end came before the length that the file has");
        done += count;
    }
    bytes
}

/// The bytes of a file, opened again; `None` when there is none.
pub(super) fn look(disk: &dyn Disk, file: &FileName) -> Option<Vec<u8>> {
    disk.open(file).unwrap().map(|file| read(&*file))
}

pub(super) fn put(disk: &dyn Disk, file: &FileName, bytes: &[u8]) -> Box<dyn DiskFile> {
    let made = disk.create(file).unwrap();
    made.write_all_at(bytes, 0).unwrap();
    made
}

fn on_both(check: impl Fn(&dyn Disk)) {
    let dir = tempfile::tempdir().unwrap();
    check(&OsDisk::lock(DataDirectory::open(dir.path()).unwrap()).unwrap());
    check(&SimDisk::new(1));
}

#[test]
fn a_name_without_a_file_is_no_error() {
    on_both(|disk| {
        for file in [phext("a"), journal("a"), FileName::NewPhext(name("a")), FileName::Reserve] {
            assert_eq!(disk.identity(&file).unwrap(), None);
            assert!(disk.open(&file).unwrap().is_none());
            disk.remove(&file).unwrap();
            let error = disk.rename(&file, &phext("b")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
    });
}

#[test]
fn bytes_are_read_where_they_were_written() {
    on_both(|disk| {
        let file = put(disk, &journal("a"), b"one");
        file.write_all_at(b"two", 5).unwrap();
        assert_eq!(read(&*file), b"one\0\0two");
        file.set_bytes(2).unwrap();
        file.set_bytes(4).unwrap();
        assert_eq!(look(disk, &journal("a")).unwrap(), b"on\0\0");
        assert_eq!(file.read_at(&mut [0; 8], 4).unwrap(), 0);
        assert_eq!(file.read_at(&mut [0; 8], 400).unwrap(), 0);
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        disk.sync_directory().unwrap();
    });
}

#[test]
fn room_that_is_taken_is_zeros_and_keeps_what_is_there() {
    on_both(|disk| {
        let file = put(disk, &FileName::Reserve, b"ab");
        file.allocate(0).unwrap();
        file.allocate(4).unwrap();
        file.allocate(1).unwrap();
        assert_eq!(read(&*file), b"ab\0\0");
    });
}

#[test]
fn a_rename_takes_the_other_file_away_and_open_files_stay_what_they_are() {
    on_both(|disk| {
        let old = put(disk, &phext("a"), b"old");
        let new = put(disk, &FileName::NewPhext(name("a")), b"new");
        let before = new.identity().unwrap();
        disk.rename(&FileName::NewPhext(name("a")), &phext("a")).unwrap();
        assert_eq!(look(disk, &phext("a")).unwrap(), b"new");
        assert_eq!(look(disk, &FileName::NewPhext(name("a"))), None);
        assert_eq!(read(&*old), b"old");
        let after = disk.identity(&phext("a")).unwrap().unwrap();
        assert_eq!(after, new.identity().unwrap());
        assert_eq!((after.inode, after.bytes), (before.inode, 3));
        assert_eq!((after.modified_s, after.modified_ns), (before.modified_s, before.modified_ns));
    });
}

#[test]
fn a_new_file_is_empty_and_leaves_the_old_one_to_whoever_has_it_open() {
    on_both(|disk| {
        let old = put(disk, &journal("a"), b"old");
        let new = disk.create(&journal("a")).unwrap();
        assert_eq!(look(disk, &journal("a")).unwrap(), b"");
        assert_eq!(read(&*old), b"old");
        assert_ne!(old.identity().unwrap().inode, new.identity().unwrap().inode);
    });
}

#[test]
fn a_visit_finds_every_file_of_the_store() {
    on_both(|disk| {
        let mut kept =
            vec![phext("a"), journal("a"), phext("\u{e4} b"), phext("c.journal"), FileName::Reserve];
        kept.extend([FileName::NewPhext(name("a")), FileName::NewJournal(name("a.phext.tmp"))]);
        kept.iter().for_each(|file| _ = put(disk, file, b"x"));
        let mut found = Vec::new();
        disk.visit(&mut |name| found.extend(file_of(name))).unwrap();
        kept.sort();
        found.sort();
        assert_eq!(found, kept);
    });
}
