//! What a service manager relies on: notifications when a server serves, when it stops, and which process is the
//! service after an upgrade. And what Docker's secrets and pipes rely on.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use rustix::process::Signal;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::process::{self, Identity};
use sq_tests::root::Root;
use sq_tests::separate::{Gateway, Pool, Program};
use sq_tests::setup::{ADMIN_KEY, Setup};
use sq_tests::wait;

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// The service manager's end of sd_notify(3).
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new(root: &Root) -> Self {
        let path = root.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(wait::PATIENCE)).expect("a limit");
        Self { socket, path: path.to_str().expect("a path of UTF-8").to_owned() }
    }

    /// The value of the next assignment to a variable.
    fn hears(&self, variable: &str) -> String {
        let mut message = [0; 4096];
        loop {
            let length =
                self.socket.recv(&mut message).unwrap_or_else(|error| panic!("no {variable}: {error}"));
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            let value = text.lines().find_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
            if let Some(value) = value {
                return value.to_owned();
            }
        }
    }
}

/// Starts, upgrades itself on request, and stops; the manager is notified of all of it.
fn told_from_start_to_end(
    manager: &Manager,
    mut server: impl std::ops::DerefMut<Target = Program>,
    status: &str,
) {
    let shown = manager.hears("STATUS");
    assert!(shown.contains(status), "{shown}");
    server.signal(Signal::USR2);
    let next: u32 = manager.hears("MAINPID").parse().expect("a process");
    let next = Identity::of(next).expect("the process that serves now");
    assert_ne!(next.pid, server.pid());
    assert_eq!(server.ended().code(), Some(0), "{}", server.log());
    assert!(next.is_alive());
    process::signal(next.pid, Signal::TERM);
    assert_eq!(manager.hears("STOPPING"), "1");
    wait::until("its end", || !next.is_alive());
}

#[test]
fn service_manager_is_notified_of_start_and_stop() {
    let root = Arc::new(Root::new(&Setup::default()));
    let manager = Manager::new(&root);
    let told = [(NOTIFY_SOCKET, manager.path.as_str())];
    told_from_start_to_end(&manager, Pool::begin_with(&root, &told), "slots=500 tenants=2");
    told_from_start_to_end(&manager, Gateway::begin_with(&root, &[], &told), "tenants=2");
}

#[test]
fn admin_key_may_be_in_a_separate_file() {
    let root = Arc::new(Root::new(&Setup::default()));
    let file = root.join("admin-key");
    let option = ["--admin-key-file", file.to_str().expect("a path of UTF-8")];
    let mut refused = Gateway::begin(&root, &option);
    assert_eq!(refused.ended().code(), Some(1));
    assert!(refused.log().contains("admin-key"), "{}", refused.log());

    root.write("admin-key", "the first one\n");
    let mut refused = Gateway::begin(&root, &option);
    assert_eq!(refused.ended().code(), Some(1));
    assert!(
        refused.log().contains("visible ASCII") && !refused.log().contains("the first"),
        "{}",
        refused.log()
    );

    root.write("admin-key", "the-first-one\n");
    let gateway = Gateway::begin(&root, &option);
    gateway.wait_ready();
    let status = |key: &str| Client::new(root.admin(), Some(key)).get("/admin/tenants").status;
    assert_eq!((status("the-first-one"), status(ADMIN_KEY)), (200, 401), "the file's key, not the config's");
    root.write("admin-key.new", "the-second-one");
    fs::rename(root.join("admin-key.new"), &file).expect("another key");
    wait::until("the new key is in force", || status("the-second-one") == 200);
    assert_eq!(status("the-first-one"), 401);
    gateway.stop();
}

#[test]
fn new_keys_may_go_to_a_pipe() {
    let root = Root::without_registry(&Setup::default());
    let outcome = root.with_config(&["provision", "--slots", "3", "--keys-out", "-"]);
    assert!(outcome.stderr.contains("provisioned 3 tenants"), "{outcome:?}");
    let printed = outcome.success();
    let rows: Vec<Vec<&str>> = printed.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.first(), Some(&vec!["tenant", "port", "key_id", "key"]));
    assert_eq!(rows.len(), 4, "{printed}");
    assert!(rows.iter().skip(1).all(|row| row[3].starts_with("pmb-v1-")), "{printed}");
    assert!(!root.join("keys.csv").exists() && !root.join("-").exists(), "they are in a file too");
    // Nothing new: only a note.
    let again = root.with_config(&["provision", "--slots", "3", "--keys-out", "-"]);
    assert_eq!((again.code(), again.stdout.as_str()), (Some(0), ""), "{again:?}");
}

/// nginx runs as a separate user.
#[test]
fn a_socket_file_is_open_to_other_users() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.sock");
    let setup = Setup { gateway: format!("listen = \"unix:{}\"", path.display()), ..Setup::default() };
    let root = Arc::new(Root::new(&setup));
    let gateway = Gateway::serve(&root);
    let file = fs::metadata(&path).expect("the socket");
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o666);
    gateway.stop();
}

#[test]
fn worker_is_killed_before_the_pool_when_memory_runs_out() {
    let running = Deployment::start(&Setup::default());
    running.client_of("alice").get("/api/v2/toc?p=x").ok();
    let worker = running.worker_of("alice").expect("her worker");
    let score = |pid: u32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("proc");
    let pool = process::parent(worker.pid).expect("the pool");
    assert_eq!(process::name(pool).as_deref(), Some("sq-worker"));
    assert_eq!(score(worker.pid).trim(), "500");
    assert!(score(pool).trim().parse::<i32>().expect("a number") < 500);
}
