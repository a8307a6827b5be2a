//! The real disk: its lock, what it removes, and what it does not follow.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use sq_shared::layout;

use super::*;
use crate::store::disk::file_of;
use crate::store::disk::tests::{journal, look, name, phext, put};

fn open(path: &Path) -> Result<OsDisk, OpenError> {
    OsDisk::lock(DataDirectory::open(path)?)
}

#[test]
fn a_directory_is_made_for_its_owner_only_and_so_are_its_files() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("above/tenant");
    let disk = open(&path).unwrap();
    put(&disk, &journal("notes"), b"");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("notes.journal")), 0o600);
}

#[test]
fn one_worker_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let inspected = OsDisk::inspect(dir.path()).unwrap();
    assert!(!inspected.is_in_use().unwrap());
    let disk = open(dir.path()).unwrap();
    assert!(inspected.is_in_use().unwrap());
    assert!(disk.is_in_use().unwrap());
    let second = open(dir.path()).unwrap_err();
    assert!(matches!(second, OpenError::InUse(_)));
    assert!(second.to_string().contains("is in use by another worker"));
    drop(disk);
    assert!(!inspected.is_in_use().unwrap());
    open(dir.path()).unwrap();
}

#[test]
fn a_look_whether_there_is_a_worker_keeps_none_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let probe = open_directory(CWD, dir.path()).unwrap();
    probe.lock_shared().unwrap();
    let (opened, answer) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| opened.send(open(dir.path()).map(drop)).unwrap());
        // A look that takes far longer than any: the worker neither starts nor gives up meanwhile.
        let early = answer.recv_timeout(Duration::from_millis(50));
        assert!(early.is_err(), "the worker did not wait: {early:?}");
        probe.unlock().unwrap();
        answer.recv().unwrap().unwrap();
    });
}

#[test]
fn opening_removes_what_a_killed_worker_left_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let ours = ["notes.phext.tmp", "notes.journal.tmp", "a.phext.tmp.phext.tmp"];
    let others = [
        "mine.tmp",
        "notes.phext",
        "notes.journal",
        ".hidden.phext.tmp",
        ".reserve",
        ".reserve.tmp",
        "notes.phext.tmp.bak",
        "notes.phext.tmp.tmp",
        "notes.phext.tmp.",
    ];
    for file in ours.iter().chain(&others) {
        fs::write(dir.path().join(file), "x").unwrap();
    }
    fs::create_dir(dir.path().join("folder.phext.tmp")).unwrap();
    symlink("notes.phext", dir.path().join("link.journal.tmp")).unwrap();

    open(dir.path()).unwrap();
    for file in ours {
        assert!(!dir.path().join(file).exists(), "{file} is still there");
    }
    for file in others.iter().chain(&["folder.phext.tmp", "link.journal.tmp"]) {
        assert!(dir.path().join(file).symlink_metadata().is_ok(), "{file} is gone");
    }
}

#[test]
fn links_folders_and_pipes_are_seen_for_what_they_are_and_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "secret").unwrap();
    symlink(outside.path(), dir.path().join("link.phext")).unwrap();
    symlink(outside.path(), dir.path().join("link.phext.tmp")).unwrap();
    fs::create_dir(dir.path().join("folder.phext")).unwrap();
    let pipe = dir.path().join("pipe.phext");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();

    let disk = open(dir.path()).unwrap();
    for file in ["link", "folder", "pipe"] {
        assert!(!disk.identity(&phext(file)).unwrap().unwrap().is_file);
        assert!(disk.create(&phext(file)).is_err(), "{file} was replaced");
    }
    assert_eq!(disk.files().unwrap().len(), 4);
    disk.open(&phext("link")).unwrap_err();
    disk.open(&phext("folder")).unwrap_err();
    disk.open(&phext("pipe")).unwrap();
    disk.create(&FileName::NewPhext(name("link"))).unwrap_err();
    assert_eq!(fs::read(outside.path()).unwrap(), b"secret");
}

#[test]
fn each_file_has_the_name_that_the_layout_gives_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path()).unwrap();
    for (file, expected) in [
        (phext("n"), layout::phext_file(dir.path(), &name("n"))),
        (journal("n"), layout::journal_file(dir.path(), &name("n"))),
        (FileName::NewPhext(name("n")), dir.path().join("n.phext.tmp")),
        (FileName::NewJournal(name("n")), dir.path().join("n.journal.tmp")),
        (FileName::Reserve, layout::reserve_file(dir.path())),
    ] {
        put(&disk, &file, b"x");
        assert!(expected.is_file(), "{} is not there", expected.display());
        assert_eq!(file_of(expected.file_name().unwrap()), Some(file));
    }
}

#[test]
fn what_is_locked_is_what_is_written_when_the_directory_moves() {
    let root = tempfile::tempdir().unwrap();
    let (path, moved) = (root.path().join("tenant"), root.path().join("moved"));
    let disk = open(&path).unwrap();
    fs::rename(&path, &moved).unwrap();
    let other = open(&path).unwrap();
    put(&disk, &phext("a"), b"text");
    assert_eq!(fs::read(moved.join("a.phext")).unwrap(), b"text");
    assert_eq!(look(&other, &phext("a")), None);
}

#[test]
fn inspecting_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("tenant");
    assert!(matches!(OsDisk::inspect(&path), Err(OpenError::Io { .. })));
    assert!(!path.exists());

    put(&open(&path).unwrap(), &phext("a"), b"text");
    fs::write(path.join("a.phext.tmp"), "half").unwrap();
    let disk = OsDisk::inspect(&path).unwrap();
    assert_eq!(look(&disk, &phext("a")).unwrap(), b"text");
    disk.create(&phext("b")).unwrap_err();
    disk.create(&phext("a")).unwrap_err();
    disk.remove(&phext("a")).unwrap_err();
    disk.rename(&phext("a"), &phext("b")).unwrap_err();
    let file = disk.open(&phext("a")).unwrap().unwrap();
    file.write_all_at(b"new", 0).unwrap_err();
    file.set_bytes(0).unwrap_err();
    file.allocate(64).unwrap_err();
    let mut left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a.phext", "a.phext.tmp"]);
    assert_eq!(look(&disk, &phext("a")).unwrap(), b"text");
}

#[test]
fn a_data_directory_that_is_a_file_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = open(file.path()).unwrap_err();
    assert!(error.to_string().starts_with("cannot use the data directory"), "{error}");
    assert!(matches!(OsDisk::inspect(file.path()), Err(OpenError::Io { .. })));
}
