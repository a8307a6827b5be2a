//! `fsck` of more than one tenant: a data root, or every tenant of the registry, each line with the tenant's name.

use std::fs;
use std::path::Path;
use std::process::Command;

use sq_tests::binaries;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::process::{self, Outcome};
use sq_tests::root::Root;
use sq_tests::setup::{Setup, Tenant};

fn fsck(arguments: &[&str]) -> Outcome {
    process::run(Command::new(binaries::worker()).arg("fsck").args(arguments))
}

/// A root whose tenants alice and bob have a phext each, and carol none; one file of bob's is damaged if asked for.
fn root(is_damaged: bool) -> Root {
    let tenants = vec![Tenant::new("alice", 1341), Tenant::new("bob", 1342), Tenant::new("carol", 1343)];
    let root = Root::new(&Setup { tenants, ..Setup::default() });
    for tenant in ["alice", "bob"] {
        let worker = LoneWorker::start(&root.join("data").join(tenant));
        worker.client.get("/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1&s=text").ok();
        worker.stop();
    }
    if is_damaged {
        fs::write(root.join("data/bob/notes.phext"), b"not \xff UTF-8").unwrap();
    }
    // An archive, and a stray file, are no tenants.
    fs::create_dir_all(root.join("data/.archive/dora-1")).unwrap();
    fs::write(root.join("data/.archive/dora-1/notes.phext"), b"\xff").unwrap();
    fs::write(root.join("data/readme"), "a file").unwrap();
    root
}

fn line<'o>(outcome: &'o Outcome, file: &str) -> &'o str {
    let is_about = |line: &&str| line.split_whitespace().next() == Some(file);
    outcome.stdout.lines().find(is_about).unwrap_or_else(|| panic!("no line about {file}: {outcome:?}"))
}

fn assert_good(outcome: &Outcome) {
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
    for tenant in ["alice", "bob"] {
        assert!(line(outcome, &format!("{tenant}/notes.phext")).contains("ok"), "{outcome:?}");
    }
    assert!(!outcome.stdout.contains("dora"), "{outcome:?}");
    let last = outcome.stdout.lines().last().unwrap();
    assert!(last.contains("tenants: 2 phexts with 2 scrolls") && last.ends_with("0 damaged"), "{outcome:?}");
}

fn assert_damaged(outcome: &Outcome) {
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(line(outcome, "bob/notes.phext").contains("DAMAGED"), "{outcome:?}");
    assert!(line(outcome, "alice/notes.phext").contains("ok"), "{outcome:?}");
    assert!(outcome.stderr.contains("1 file damaged"), "{outcome:?}");
}

#[test]
fn a_data_root_is_verified_tenant_by_tenant() {
    for (is_damaged, assert) in [(false, assert_good as fn(&Outcome)), (true, assert_damaged)] {
        let root = root(is_damaged);
        let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
        assert(&fsck(&[&path("data")]));
        // A whole root is known by its config.
        for arguments in [&["--root", &path("")][..], &["--config", &path("gateway.toml")], &[&path("")]] {
            let outcome = fsck(arguments);
            assert(&outcome);
            assert!(outcome.stderr.contains("carol has no directory"), "{outcome:?}");
        }
    }
}

#[test]
fn a_tenant_whose_directory_is_elsewhere_is_found_by_the_registry() {
    let root = root(false);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("notes.phext"), b"\xff").unwrap();
    let registry = root.read("tenants.toml");
    let data_dir = format!("port = 1343\ndata_dir = \"{}\"", elsewhere.path().display());
    root.write_registry(&registry.replace("port = 1343", &data_dir));
    let outcome = fsck(&["--root", root.path().to_str().unwrap()]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(line(&outcome, "carol/notes.phext").contains("DAMAGED"), "{outcome:?}");
    assert!(line(&outcome, "alice/notes.phext").contains("ok"), "{outcome:?}");
}

#[test]
fn one_tenants_lines_are_as_before() {
    let root = root(false);
    let outcome = fsck(&[root.join("data/alice").to_str().unwrap()]);
    assert!(line(&outcome, "notes.phext").contains("ok"), "{outcome:?}");
    assert!(outcome.stdout.lines().last().unwrap().starts_with("1 phext with 1 scroll"), "{outcome:?}");
    // A folder in it makes it no data root.
    fs::create_dir(root.join("data/alice/strange")).unwrap();
    let outcome = fsck(&[root.join("data/alice").to_str().unwrap()]);
    assert!(line(&outcome, "notes.phext").contains("ok"), "{outcome:?}");
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_verified() {
    let root = root(false);
    fs::write(root.join("data/eve"), "a file where a directory belongs").unwrap();
    let registry = root.read("tenants.toml").replace("name = \"carol\"", "name = \"eve\"");
    root.write_registry(&registry);
    let outcome = fsck(&["--root", root.path().to_str().unwrap()]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stdout.contains("eve/  DAMAGED"), "{outcome:?}");
    assert!(line(&outcome, "alice/notes.phext").contains("ok"), "{outcome:?}");
    for arguments in [&["nowhere"][..], &["--root", "nowhere"], &["--config", "nowhere.toml"]] {
        assert_eq!(fsck(arguments).code(), Some(1), "{arguments:?}");
    }
    for arguments in [&["--root", ".", "data"][..], &["--root", ".", "--config", "gateway.toml"], &[]] {
        let outcome = fsck(arguments);
        assert_eq!(outcome.code(), Some(2), "{arguments:?}");
        assert!(outcome.stderr.contains("fsck --root"), "{outcome:?}");
    }
}

/// A root that was served, and so has a marker and notes of its tenants' directories.
fn served() -> Root {
    let root = root(false);
    root.gateway(&["tenants", "add", "dora", "--root", "."]).success();
    assert!(root.join("data/.sq-data-root").is_file());
    root
}

#[test]
fn a_stray_file_makes_a_data_root_no_tenant() {
    let root = served();
    fs::write(root.join("data/bob/notes.phext"), b"\xff").unwrap();
    let data = root.join("data");
    let data = data.to_str().unwrap();
    for stray in ["notes.phext", ".phext", "notes.journal", ".journal", "folder.phext/", "readme2"] {
        let path = root.join("data").join(stray);
        if stray.ends_with('/') {
            fs::create_dir(&path).unwrap()
        } else {
            fs::write(&path, "a text").unwrap()
        }
        let outcome = fsck(&[data]);
        assert_damaged(&outcome);
        assert!(
            outcome.stderr.contains(&format!("{} belongs to no tenant", stray.trim_end_matches('/'))),
            "{outcome:?}"
        );
        if path.is_dir() { fs::remove_dir(&path).unwrap() } else { fs::remove_file(&path).unwrap() }
    }
    // A disk's own folder, which is for root alone, is nobody's.
    fs::create_dir(root.join("data/lost+found")).unwrap();
    assert!(!fsck(&[data]).stdout.contains("lost+found"));
    // One without a directory is a data root too.
    for tenant in ["alice", "bob", "dora"] {
        fs::remove_dir_all(root.join("data").join(tenant)).unwrap();
        root.gateway(&["tenants", "make-directory", tenant, "--root", "."]);
    }
    assert!(fsck(&[data]).success().contains("tenants: 0 phexts"));
}

#[test]
fn a_directory_that_was_there_is_missed_in_a_data_root() {
    let root = served();
    let data = root.join("data");
    let ask = || fsck(&[data.to_str().unwrap()]);
    ask().success();
    let dora = root.join("data/dora");
    fs::remove_dir_all(&dora).unwrap();
    type Occupy = fn(&Path);
    let occupy: [(Occupy, &str); 3] = [
        (|_| (), "it is missing"),
        (|path| fs::write(path, "a file").unwrap(), "not a directory"),
        (|path| std::os::unix::fs::symlink("nowhere", path).unwrap(), "not a directory"),
    ];
    for (occupy, told) in occupy {
        occupy(&dora);
        let outcome = ask();
        assert_eq!(outcome.code(), Some(1), "{outcome:?}");
        let line = line(&outcome, "dora/");
        assert!(line.contains("DAMAGED") && line.contains(told) && line.contains("data/dora"), "{outcome:?}");
        assert!(outcome.stdout.contains("alice/notes.phext"), "{outcome:?}");
        let _ = fs::remove_file(&dora);
    }
    // By the registry its directory is elsewhere now.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("far.phext"), "text").unwrap();
    let registry = root.read("tenants.toml");
    let data_dir = format!("name = \"dora\"\ndata_dir = \"{}\"", elsewhere.path().display());
    root.write_registry(&registry.replace("name = \"dora\"", &data_dir));
    let outcome = ask();
    assert!(line(&outcome, "dora/far.phext").contains("ok"), "{outcome:?}");
    outcome.success();
}
