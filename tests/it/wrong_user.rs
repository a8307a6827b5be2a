//! A system belongs to one user. Root acts as that user, and other users are refused and told what to do. Files that another
//! user left in it are found, and reported where they get in the way.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, geteuid};
use sq_tests::deployment::Deployment;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::process::{self, Outcome};
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::{binaries, notice, tree, wait};
use tempfile::TempDir;

/// The owner of the system.
const USER: u32 = 65534;

/// Another user, who may write there.
const OTHER: u32 = 65533;

const WRITE: &str = "/api/v2/insert?p=notes&c=1.1.1/1.1.1/1.1.1";
const READ: &str = "/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1";

fn is_root(what: &str) -> bool {
    if !geteuid().is_root() {
        notice::not_allowed_here(what);
    }
    geteuid().is_root()
}

/// Gives a folder with its contents to a user, and makes it writable for all.
fn give(path: &Path, user: u32) {
    lchown(path, Some(user), Some(user)).unwrap();
    let is_folder = path.is_dir();
    fs::set_permissions(path, Permissions::from_mode(if is_folder { 0o777 } else { 0o666 })).unwrap();
    if is_folder {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), user));
    }
}

/// A system of the user, with a phext of alice.
fn system(setup: &Setup) -> Root {
    let root = Root::new(setup);
    fs::create_dir_all(root.join("data/alice")).unwrap();
    root.write("data/alice/notes.phext", "text");
    root.write("old.json", r#"{"tenants": {"tok-1": {"name": "zoe", "data_dir": "zoe"}}}"#);
    give(root.path(), USER);
    root
}

/// Copies of the programs that every user may start.
fn programs() -> (TempDir, [PathBuf; 2]) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let copied = [binaries::gateway(), binaries::worker()].map(|program| {
        let copy = folder.path().join(program.file_name().unwrap());
        fs::copy(&program, &copy).unwrap();
        copy
    });
    (folder, copied)
}

fn run_as(user: u32, root: &Root, program: &Path, line: &str) -> Outcome {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user.to_string(), "--regid", &user.to_string(), "--clear-groups"]);
    command.arg(program).args(line.split(' ')).current_dir(root.path()).env_remove("RUST_LOG");
    process::run(&mut command)
}

fn owners(root: &Root) -> Vec<(PathBuf, u32)> {
    let paths = tree::files(root.path()).into_iter();
    paths.map(|path| (path.clone(), fs::symlink_metadata(root.join(&path)).unwrap().uid())).collect()
}

#[test]
fn up_as_root_leaves_only_files_that_the_owner_can_use() {
    if !is_root("a system that root starts for another user") {
        return;
    }
    let root = Arc::new(system(&Setup::default()));
    fs::remove_file(root.registry()).unwrap();
    fs::remove_dir_all(root.join("data")).unwrap();
    let running = Deployment::up(Arc::clone(&root), &[]);
    let keys = root.read("keys.csv");
    let key = keys.lines().find_map(|line| line.strip_prefix("bob,")).unwrap().rsplit(',').next().unwrap();
    running.client(Some(key)).post(WRITE, "more").ok();
    // Since then, only root can see its descriptors; it passes its check all the same.
    let checked = root.gateway(&["check", "--root", "."]);
    assert_eq!((checked.stdout.as_str(), checked.stderr.as_str()), ("ok\n", ""));
    running.stop();
    // The harness keeps what was printed.
    let is_ours = |path: &Path| !path.starts_with("up.stdout") && !path.starts_with("up.log");
    for (path, owner) in owners(&root).into_iter().filter(|(path, _)| is_ours(path)) {
        assert_eq!(owner, USER, "{}", path.display());
    }
    assert_eq!(root.gateway(&["check", "--config", "gateway.toml"]).success(), "ok\n");
    let (_folder, [gateway, worker]) = programs();
    assert_eq!(run_as(USER, &root, &gateway, "check --config gateway.toml").success(), "ok\n");
    run_as(USER, &root, &worker, "fsck data/bob").success();
}

/// The folder belongs to root, and the data to another user, who could not read a config that root creates there.
#[test]
fn root_creates_no_config_that_the_owner_of_the_data_cannot_read() {
    if !is_root("a system that root makes for another user's data") {
        return;
    }
    let root = Root::empty();
    fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(root.join("data")).unwrap();
    chown(root.join("data"), Some(USER), Some(USER)).unwrap();
    let provision = ["provision", "--slots", "1", "--root", "."];
    let refused = root.gateway(&provision);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    for words in ["gateway.toml", "Permission denied", "belongs to user root (0)", "chown"] {
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
    }
    assert!(tree::files(root.path()).is_empty());
    chown(root.path(), Some(USER), Some(USER)).unwrap();
    root.gateway(&provision).success();
    assert!(owners(&root).iter().all(|(_, owner)| *owner == USER), "{:?}", owners(&root));
}

#[test]
fn other_users_are_refused_and_told_what_to_do() {
    if !is_root("commands of another user") {
        return;
    }
    let root = system(&Setup::default());
    let (_folder, [gateway, worker]) = programs();
    let before = owners(&root);
    let registry = root.read("tenants.toml");
    for (program, line) in [
        (&gateway, "up --root ."),
        (&gateway, "serve --config gateway.toml"),
        (&gateway, "provision --slots 1 --root ."),
        (&gateway, "tenants add dora --root ."),
        (&gateway, "tenants rotate-key alice --root ."),
        (&gateway, "tenants suspend alice --root ."),
        (&gateway, "import old.json --out new.toml --root ."),
        (&worker, "pool --config gateway.toml"),
        (&worker, "serve --data-dir data/alice --key secret"),
    ] {
        let refused = run_as(OTHER, &root, program, line);
        assert_eq!(refused.code(), Some(1), "{line}: {refused:?}");
        for words in [&format!("({USER})"), &format!("({OTHER})"), "sudo -u", "as root", "chown"] {
            let is_said =
                refused.stderr.contains(words) || refused.stderr.contains(words.trim_matches(['(', ')']));
            assert!(is_said, "{words}: {line}: {refused:?}");
        }
        assert_eq!((refused.stdout.as_str(), owners(&root)), ("", before.clone()), "{line}");
        assert_eq!(root.read("tenants.toml"), registry, "{line}");
    }
    // Also for a new system in another user's folder.
    let empty = Root::empty();
    give(empty.path(), USER);
    let refused = run_as(OTHER, &empty, &gateway, "provision --slots 1 --root .");
    assert!(refused.code() == Some(1) && refused.stderr.contains("belongs to"), "{refused:?}");
    assert!(tree::files(empty.path()).is_empty());
    // Commands that only read are allowed.
    run_as(OTHER, &root, &gateway, "tenants list --root .").success();
    run_as(OTHER, &root, &worker, "fsck data/alice").success();
    // The owner may run all of them, and so may a user who can write to root's folder.
    run_as(USER, &root, &gateway, "tenants add dora --root .").success();
    let roots = Root::new(&Setup::default());
    give(roots.path(), 0);
    run_as(OTHER, &roots, &gateway, "tenants add dora --root .").success();
}

/// A path that root left behind, or that the owner may not access.
#[derive(Debug, Clone, Copy)]
enum Fault {
    OfRoot,
    NoMode,
}

#[test]
fn check_and_fsck_find_files_that_the_owner_cannot_use() {
    if !is_root("files of root in another user's system") {
        return;
    }
    let (_folder, [gateway, worker]) = programs();
    let mut in_tenant =
        vec!["data/alice/notes.phext", "data/alice/notes.journal", "data/alice/.keys", "data/alice"];
    // A link leads to it.
    in_tenant.extend(["data/alice/years/june.phext", "data/alice/years/june.journal", "data/alice/years"]);
    let in_root = ["keys.csv", "audit.log", "tenants.toml.lock", "data"];
    for path in in_tenant.iter().copied().chain(in_root) {
        for fault in [Fault::OfRoot, Fault::NoMode] {
            let root = system(&Setup::default());
            fs::create_dir_all(root.join("data/alice/years")).unwrap();
            root.write("data/alice/years/june.phext", "");
            symlink("years/june.phext", root.join("data/alice/month.phext")).unwrap();
            if !root.join(path).exists() {
                root.write(path, "");
            }
            give(root.path(), USER);
            let what = root.join(path);
            fs::set_permissions(&what, Permissions::from_mode(0o000)).unwrap();
            if matches!(fault, Fault::OfRoot) {
                chown(&what, Some(0), Some(0)).unwrap();
                let mode = if what.is_dir() { 0o755 } else { 0o644 };
                fs::set_permissions(&what, Permissions::from_mode(mode)).unwrap();
            }
            let mut outcomes = vec![
                root.gateway(&["check", "--config", "gateway.toml"]),
                run_as(USER, &root, &gateway, "check --config gateway.toml"),
            ];
            if in_tenant.contains(&path) {
                let mut fsck = Command::new(&worker);
                outcomes.push(process::run(fsck.args(["fsck", "data/alice"]).current_dir(root.path())));
                // A directory that cannot be listed is reported separately.
                if path != "data/alice" {
                    outcomes.push(run_as(USER, &root, &worker, "fsck data/alice"));
                }
            }
            for outcome in outcomes {
                assert_eq!(outcome.code(), Some(1), "{fault:?} {path}: {outcome:?}");
                let told = outcome.stdout + &outcome.stderr;
                let remedy = match fault {
                    Fault::OfRoot => format!("chown {USER} "),
                    Fault::NoMode => "chmod u+rw".to_owned(),
                };
                let lines: Vec<&str> = told.lines().filter(|line| line.contains(&remedy)).collect();
                let line = lines.first().unwrap_or_else(|| panic!("{fault:?} {path}: {told}"));
                for words in [path, "Permission denied", "mode 0", "belongs to"] {
                    assert!(line.contains(words), "{words}: {fault:?} {path}: {told}");
                }
            }
        }
    }
}

#[test]
fn obstacles_are_logged_and_not_sent_to_the_client() {
    if !is_root("files of root in another user's system") {
        return;
    }
    let setup = Setup { gateway: "audit = \"try\"".to_owned(), ..Setup::default() };
    let root = Arc::new(system(&setup));
    for path in ["data/alice/notes.phext", "audit.log"] {
        root.write(path, "");
        chown(root.join(path), Some(0), Some(0)).unwrap();
        fs::set_permissions(root.join(path), Permissions::from_mode(0o600)).unwrap();
    }
    let running = Deployment::up(Arc::clone(&root), &[]);
    for answer in [running.client_of("alice").get(READ), running.client_of("alice").post(WRITE, "more")] {
        assert_eq!(answer.status, 503, "{answer:?}");
        let text = answer.text();
        assert!(!text.contains("notes.phext") && !text.contains("belongs to"), "{text}");
    }
    running.client_of("bob").post(WRITE, "his").ok();
    let denied = |file: &str| {
        let log = running.log();
        log.lines().any(|line| {
            ["Permission denied", "0600", "belongs to"].iter().all(|words| line.contains(words))
                && line.contains(file)
        })
    };
    wait::until("a line about the phext", || denied("notes.phext"));
    wait::until("a line about the audit log", || denied("audit.log"));
    running.stop();
}

/// Makes a path accessible to its owner only, or to no user.
fn shut(path: &Path, fault: Fault) {
    let mode = if matches!(fault, Fault::OfRoot) { 0o700 } else { 0 };
    if matches!(fault, Fault::OfRoot) {
        chown(path, Some(0), Some(0)).unwrap();
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A worker could not use the directory: the pool's stand-in says so at once, and the log says why.
#[test]
fn a_directory_that_the_user_may_not_use_is_told_at_once_and_served_when_it_is_given_back() {
    if !is_root("a tenant's directory of root") {
        return;
    }
    let running = Deployment::up(Arc::new(system(&Setup::default())), &[]);
    let bob = running.client_of("bob");
    for fault in [Fault::OfRoot, Fault::NoMode] {
        bob.post(WRITE, "his").ok();
        let directory = running.join("data/bob");
        shut(&directory, fault);
        process::signal(running.worker_of("bob").unwrap().pid, Signal::KILL);
        let begun = Instant::now();
        wait::until("the refusal", || bob.get(READ).status == 503);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        bob.get(READ).problem(503, "data_root_missing");
        bob.post(WRITE, "lost").problem(503, "data_root_missing");
        let owner = if matches!(fault, Fault::OfRoot) { "user root (0), mode 0700" } else { "mode 0000" };
        let is_told = |line: &str| {
            ["ERROR", directory.to_str().unwrap(), owner, "Permission denied"]
                .iter()
                .all(|words| line.contains(words))
        };
        assert!(running.log().lines().any(is_told), "{fault:?}: {}", running.log());
        assert_eq!(running.client_of("alice").get(READ).ok(), "text");
        give(&directory, USER);
        wait::until("his directory", || bob.get(READ).status == 200);
    }
}

#[test]
fn unreadable_note_is_reported() {
    if !is_root("notes of root") {
        return;
    }
    for path in ["data/.sq-tenants", "data/.sq-tenants/alice"] {
        for fault in [Fault::OfRoot, Fault::NoMode] {
            let root = Arc::new(system(&Setup::default()));
            Deployment::up(Arc::clone(&root), &[]).client_of("alice").get(READ).ok();
            fs::create_dir(root.join("data/.archive")).unwrap();
            chown(root.join("data/.archive"), Some(0), Some(0)).unwrap();
            shut(&root.join(path), fault);
            let running = Deployment::up(Arc::clone(&root), &[]);
            running.client_of("alice").get(READ).problem(503, "data_root_missing");
            let obstacle = root.join(path);
            let words = ["ERROR", "Permission denied", "belongs to", obstacle.to_str().unwrap()];
            let is_told = |line: &str| words.iter().all(|words| line.contains(words));
            assert!(running.log().lines().any(is_told), "{fault:?} {path}: {}", running.log());
            let checked = running.with_config(&["check"]);
            assert_eq!(checked.code(), Some(1), "{checked:?}");
            let remedy = if matches!(fault, Fault::OfRoot) { "chown" } else { "chmod u+rw" };
            let is_listed = |path: &str, remedy: &str| {
                checked.stderr.lines().any(|line| line.contains(path) && line.contains(remedy))
            };
            assert!(is_listed(&format!("{path}: "), remedy), "{fault:?} {path}: {checked:?}");
            assert!(is_listed("data/.archive: ", "chown"), "{checked:?}");
            give(&obstacle, USER);
            wait::until("her directory", || running.client_of("alice").get(READ).status == 200);
        }
    }
}

#[test]
fn lone_worker_of_root_leaves_only_files_that_the_owner_can_use() {
    if !is_root("a worker that root starts on another user's directory") {
        return;
    }
    let root = system(&Setup::default());
    for path in ["data/alice", "data/new"] {
        let worker = LoneWorker::start(&root.join(path));
        worker.client.post(WRITE, "more").ok();
        worker.client.post("/api/v2/insert?p=other&c=1.1.1/1.1.1/1.1.1", "new").ok();
        worker.stop();
    }
    assert!(root.join("data/new/other.phext").exists());
    for (path, owner) in owners(&root) {
        assert_eq!(owner, USER, "{}", path.display());
    }
    // A directory that only root owns stays root's.
    let roots = Root::empty();
    LoneWorker::start(&roots.join("data")).client.post(WRITE, "text").ok();
    assert!(owners(&roots).iter().all(|(_, owner)| *owner == 0));
}

#[test]
fn unreadable_file_is_reported_with_its_owner() {
    if !is_root("files of root in another user's system") {
        return;
    }
    let (_folder, [gateway, worker]) = programs();
    for (path, line) in [
        ("gateway.toml", "check --config gateway.toml"),
        ("tenants.toml", "check --config gateway.toml"),
        ("tenants.toml", "tenants list --root ."),
        ("tenants.toml", "up --root ."),
        ("tenants.toml.lock", "tenants suspend alice --root ."),
        ("keys.csv", "provision --slots 3 --root ."),
    ] {
        let root = system(&Setup::default());
        if !root.join(path).exists() {
            root.write(path, "");
        }
        chown(root.join(path), Some(0), Some(0)).unwrap();
        fs::set_permissions(root.join(path), Permissions::from_mode(0o600)).unwrap();
        let refused = run_as(USER, &root, &gateway, line);
        assert_eq!(refused.code(), Some(1), "{line}: {refused:?}");
        for words in [path, "Permission denied", "belongs to user root (0)", "mode 0600"] {
            assert!(refused.stderr.contains(words), "{words}: {line}: {refused:?}");
        }
    }
    // A folder that the user may not enter, and one that the user may not write to.
    let root = system(&Setup::default());
    chown(root.join("data/alice"), Some(0), Some(0)).unwrap();
    fs::set_permissions(root.join("data/alice"), Permissions::from_mode(0o700)).unwrap();
    let refused =
        run_as(USER, &root, &worker, "serve --data-dir data/alice --key secret --listen 127.0.0.1:0");
    for words in ["data/alice", "Permission denied", "belongs to user root (0)"] {
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
    }
    chown(root.join("data"), Some(0), Some(0)).unwrap();
    fs::set_permissions(root.join("data"), Permissions::from_mode(0o755)).unwrap();
    let refused = run_as(USER, &root, &gateway, "tenants add dora --root .");
    for words in ["Permission denied", "/data belongs to user root (0)"] {
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
    }
    // A worker without a pool reports it too.
    let lone = Root::empty();
    fs::create_dir(lone.join("notes")).unwrap();
    LoneWorker::start(&lone.join("notes")).stop();
}

/// A directory that another user may not even open.
#[test]
fn unusable_directory_is_reported_with_its_owner() {
    if !is_root("a directory that another user may not open") {
        return;
    }
    let root = Root::empty();
    fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
    let alice = root.join("alice");
    fs::create_dir(&alice).unwrap();
    fs::set_permissions(&alice, Permissions::from_mode(0o700)).unwrap();
    let (_folder, [_, worker]) = programs();
    for (line, obstacle) in [
        ("fsck alice", "alice belongs to user root"),
        ("fsck alice/notes", "alice belongs to user root"),
        ("serve --no-auth --listen 127.0.0.1:0 --data-dir alice", "alice belongs to user root"),
        ("serve --no-auth --listen 127.0.0.1:0 --data-dir new", "belongs to user root"),
    ] {
        let outcome = run_as(OTHER, &root, &worker, line);
        assert_eq!(outcome.code(), Some(1), "{line}: {outcome:?}");
        let told = outcome.stderr.contains("Permission denied") && outcome.stderr.contains(obstacle);
        assert!(told && outcome.stderr.contains("and this process is user 65533"), "{line}: {outcome:?}");
    }
}
