//! New programs for workers and pool while requests run: none fails, and no write is lost or doubled.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::root::Root;
use sq_tests::scrape::Scrape;
use sq_tests::separate::Pool;
use sq_tests::setup::{Setup, Tenant};
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::writers::{Manner, Writers, Written};
use sq_tests::{binaries, process, wait};

const TENANTS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// The clients of each tenant: one keeps its connection, one connects each time.
const BOTH: [(usize, Manner); 2] = [(1, Manner::Kept), (1, Manner::Fresh)];

/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(5);

fn setup() -> Setup {
    let tenants = TENANTS.into_iter().zip(1341..).map(|(name, port)| Tenant::new(name, port)).collect();
    Setup { tenants, ..Setup::default() }
}

/// Clients of these tenants at work.
fn load(running: &Deployment, tenants: &[&str]) -> Writers {
    let clients: Vec<Client> = tenants.iter().map(|tenant| running.client_of(tenant)).collect();
    Writers::of_each(&clients, &BOTH, PAUSE, 0)
}

fn assert_all_is_well(load: Writers) {
    load.go_on();
    load.stop().iter().for_each(Written::assert_complete);
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
}

/// Copies of both programs, which may be replaced.
fn install(root: &Root) -> PathBuf {
    let folder = root.join("bin");
    fs::create_dir(&folder).unwrap();
    copy(&binaries::gateway(), &folder.join("sq-gateway"));
    copy(&binaries::worker(), &folder.join("sq-worker"));
    folder
}

/// Replaces the workers' program by renaming another over it.
fn replace_worker(bin: &Path, fill: impl FnOnce(&Path)) {
    let new = bin.join("sq-worker.new");
    fill(&new);
    fs::rename(new, bin.join("sq-worker")).unwrap();
}

/// `up` with the programs of a folder.
fn up(root: Root, bin: &Path) -> Deployment {
    let folder = root.path().to_str().unwrap().to_owned();
    let mut command = std::process::Command::new(bin.join("sq-gateway"));
    command.args(["up", "--root", &folder]).env_remove("RUST_LOG");
    Deployment::spawn(root, &mut command)
}

fn pool_of(running: &Deployment) -> u32 {
    let family = process::descendants(running.pid());
    let is_pool = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("pool\0");
    family.into_iter().map(|process| process.pid).find(is_pool).expect("the pool")
}

fn pids(running: &Deployment) -> BTreeMap<String, u32> {
    running.workers().into_iter().map(|worker| (worker.tenant, worker.pid)).collect()
}

fn inode_of(path: impl AsRef<Path>) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn workers_are_replaced_one_after_the_other_while_they_serve() {
    let root = Root::new(&setup());
    let bin = install(&root);
    let running = up(root, &bin);
    let load = load(&running, &TENANTS[..3]);
    let before = pids(&running);
    assert_eq!(before.len(), 3, "{before:?}");
    for pid in before.values() {
        assert_eq!(process::name(*pid).as_deref(), Some("sq-worker"));
    }

    // Nothing new: nothing happens. The pool has one thread: when it answers whoever asked after the signal, it has
    // looked for a new program; had it found one, the line about it would be there twice in the end.
    process::signal(pool_of(&running), Signal::HUP);
    load.go_on();
    assert_eq!(pids(&running), before);

    replace_worker(&bin, |new| copy(&binaries::worker(), new));
    process::signal(pool_of(&running), Signal::HUP);
    wait::until("the line that says so", || running.log().contains("all workers are the new program"));
    assert!(running.log().contains("replaced=3"), "{}", running.log());
    assert_eq!(running.log().matches("there is a new program").count(), 1, "{}", running.log());
    assert_all_is_well(load);
    let after = pids(&running);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (tenant, pid) in &after {
        assert_ne!(before[tenant], *pid, "{tenant}");
        assert_eq!(inode_of(format!("/proc/{pid}/exe")), inode_of(bin.join("sq-worker")), "{tenant}");
    }
    let status = running.pool_status();
    for slot in status["slots"].as_array().unwrap() {
        assert_eq!(slot["crashes"], 0, "{slot}");
    }
    let upgraded = "sq_pool_worker_starts_total{reason=\"upgrade\",tenant=\"bob\"}";
    assert_eq!(Scrape::of_pool(running.address).get(upgraded), Some(1.0));
    running.stop();
}

#[test]
fn a_new_program_that_does_not_run_leaves_everything_as_it_was() {
    let root = Root::new(&setup());
    let bin = install(&root);
    let running = up(root, &bin);
    let load = load(&running, &TENANTS[..2]);
    let before = pids(&running);
    let old = inode_of(bin.join("sq-worker"));
    let broken = ["not a program", "#!/bin/sh\nexit 1\n", "#!/bin/sh\necho another program 1.0\n"];
    for text in broken {
        let logged = running.log().len();
        replace_worker(&bin, |new| {
            fs::write(new, text).unwrap();
            fs::set_permissions(new, fs::Permissions::from_mode(0o755)).unwrap();
        });
        process::signal(pool_of(&running), Signal::HUP);
        wait::until("a line about the program", || {
            running.log()[logged..].contains("new program failed its check")
        });
    }
    assert_eq!(pids(&running), before);
    // Who slept wakes all the same, as the program that is known to run.
    running.client_of("dave").post(UPDATE, "awake").ok();
    let dave = wait::until_some("dave's worker", || running.worker_of("dave"));
    assert_eq!(inode_of(format!("/proc/{}/exe", dave.pid)), old);
    assert_all_is_well(load);
    running.stop();
}

/// A pool and a gateway that were started apart.
fn apart() -> (Arc<Root>, Pool, Deployment) {
    let root = Arc::new(Root::new(&setup()));
    let pool = Pool::start(&root);
    let config = root.config();
    let mut gateway = root.gateway_command(&["serve", "--config", config.to_str().unwrap()]);
    let running = Deployment::spawn(Arc::clone(&root), &mut gateway);
    (root, pool, running)
}

fn upgrade_socket(root: &Root) -> PathBuf {
    root.join("gateway.toml.pool-upgrade")
}

#[test]
fn a_pool_is_replaced_while_requests_run() {
    let (root, mut old, running) = apart();
    let load = load(&running, &TENANTS[..2]);
    let before = pids(&running);

    let client = running.client_of("carol");
    let mut slow = client.connect();
    slow.send((client.head("POST", UPDATE) + "Content-Length: 7\r\nConnection: close\r\n\r\n").as_bytes());
    slow.send(b"0");
    let carol = wait::until_some("carol's worker", || running.worker_of("carol"));

    let new = Pool::begin_upgrade(&root, &binaries::worker());
    let socket = upgrade_socket(&root);
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    old.signal(Signal::QUIT);
    new.wait_ready();
    assert!(!socket.exists(), "the socket file is still there");
    for piece in [b"1", b"2", b"3", b"4", b"5", b"6"] {
        wait::pass(Duration::from_millis(500));
        assert!(process::Identity::of(carol.pid).is_some(), "carol's worker was cut off");
        slow.send(piece);
    }
    assert_eq!(slow.answer().ok(), "Updated 7 bytes");
    assert_eq!(old.ended().code(), Some(0), "{}", old.log());

    running.client_of("dave").post(UPDATE, "awake").ok();
    assert_eq!(client.get(&UPDATE.replace("update", "select")).ok(), "0123456");
    assert_all_is_well(load);
    let after = pids(&running);
    for (tenant, pid) in &before {
        assert_ne!(after[tenant], *pid, "{tenant}");
    }
    assert!(running.pool_status()["slots"].as_array().unwrap().iter().all(|slot| slot["crashes"] == 0));
    let log = new.log() + &old.log();
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");

    // It can be upgraded again.
    let third = new.upgrade(&binaries::worker());
    running.client_of("alice").get(SELECT).ok();
    third.stop();
}

#[test]
fn a_new_pool_with_other_slots_takes_what_fits() {
    let (root, mut old, running) = apart();
    running.client_of("alice").post(UPDATE, "kept").ok();
    let mut other = Setup { gateway: "slots = \"1342-1400\"".to_owned(), ..setup() };
    // alice's directory is still open on a slot that the new pool does not have.
    other.tenants[0].port = 1399;
    running.write("gateway.toml", &sq_tests::setup::config_text(&other, running.address));
    running.write_registry(&sq_tests::setup::registry_text(&other.tenants));
    let new = Pool::begin_upgrade(&root, &binaries::worker());
    old.signal(Signal::QUIT);
    new.wait_ready();
    assert!(new.printed().starts_with("ready slots=59 "));
    let alice = running.slot(1399, Some(&sq_tests::setup::key_of("alice")));
    assert_eq!(alice.get(&UPDATE.replace("update", "select")).ok(), "kept");
    assert_eq!(old.ended().code(), Some(0), "{}", old.log());
    assert!(running.slot(1341, None).try_connect().is_err(), "a slot that nobody wants is closed");
}

#[test]
fn a_new_pool_that_dies_before_it_took_over_changes_nothing() {
    let (root, old, running) = apart();
    let load = load(&running, &TENANTS[..2]);
    let before = pids(&running);
    // Instead of the new pool: one that accepts the connection and dies.
    let socket = upgrade_socket(&root);
    let dying = UnixListener::bind(&socket).unwrap();
    old.signal(Signal::QUIT);
    drop(dying.accept().unwrap());
    fs::remove_file(&socket).unwrap();
    wait::until("a line about it", || old.log().contains("not upgraded, this pool goes on"));
    running.client_of("dave").post(UPDATE, "awake").ok();
    assert_all_is_well(load);
    assert!(before.iter().all(|(tenant, pid)| pids(&running)[tenant] == *pid), "a worker was stopped");

    // A real one, killed while it waits, leaves its file; the next one takes over.
    let mut killed = Pool::begin_upgrade(&root, &binaries::worker());
    killed.signal(Signal::KILL);
    killed.ended();
    let _new = old.upgrade(&binaries::worker());
    running.client_of("alice").get(SELECT).ok();
}

#[test]
fn a_pool_that_finds_no_new_one_says_so_and_goes_on() {
    let (_root, old, running) = apart();
    running.client_of("alice").post(UPDATE, "kept").ok();
    old.signal(Signal::QUIT);
    wait::until("a line that says what to do", || old.log().contains("start `sq-worker pool --upgrade`"));
    running.client_of("bob").post(UPDATE, "awake").ok();
}

#[test]
fn the_pool_of_up_is_not_upgraded() {
    let running = Deployment::start(&setup());
    process::signal(pool_of(&running), Signal::QUIT);
    wait::until("a line that says so", || running.log().contains("SIGQUIT is ignored"));
    running.client_of("alice").post(UPDATE, "kept").ok();
    running.stop();
}
