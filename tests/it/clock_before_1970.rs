//! A clock that stands before 1970, which HTTP's dates and the ids of requests cannot express: it is said at the start, and
//! no request meets a panic. (Linux lets no clock be set so while a server runs.)

use std::process::Command;

use sq_tests::lone_worker::LoneWorker;
use sq_tests::process::{self, Outcome};
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::{binaries, faketime};

const WHAT: &str = "a clock before 1970";

/// A day before, ten years before, and in another century.
const BEFORE: [&str; 3] = ["@1969-12-30 12:00:00", "@1960-01-01 00:00:00", "@1901-12-14 00:00:00"];

const SELECT: &str = "/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1";

fn assert_refused(outcome: &Outcome, what: &str) {
    assert_eq!(outcome.code(), Some(1), "{what}: {outcome:?}");
    assert!(outcome.stderr.contains("clock stands before 1970"), "{what}: {outcome:?}");
    assert!(!outcome.stderr.contains("panicked") && outcome.stdout.is_empty(), "{what}: {outcome:?}");
}

#[test]
fn no_server_starts_on_it() {
    let Some(library) = faketime::library(WHAT) else { return };
    for time in BEFORE {
        let root = Root::new(&Setup::default());
        let config = root.config();
        let at = |mut command: Command| {
            faketime::set(&mut command, &library, time);
            process::run(&mut command)
        };
        let folder = root.path().to_str().unwrap();
        assert_refused(&at(root.gateway_command(&["up", "--root", folder])), "up");
        let config = config.to_str().unwrap();
        assert_refused(&at(root.gateway_command(&["serve", "--config", config])), "serve");
        let mut pool = Command::new(binaries::worker());
        pool.args(["pool", "--config", config]);
        assert_refused(&at(pool), "pool");
        assert_refused(&at(LoneWorker::command(&root.join("worker"))), "worker");
        // An empty folder is not begun either.
        let empty = Root::empty();
        let folder = empty.path().to_str().unwrap();
        assert_refused(&at(empty.gateway_command(&["up", "--root", folder])), "up");
        assert!(!empty.config().exists());
    }
}

#[test]
fn a_key_gets_no_end_by_it_and_what_needs_no_time_works() {
    let Some(library) = faketime::library(WHAT) else { return };
    let root = Root::new(&Setup::default());
    let config = root.config();
    let run = |arguments: &[&str]| {
        let mut command =
            root.gateway_command(&[arguments, &["--config", config.to_str().unwrap()]].concat());
        faketime::set(&mut command, &library, BEFORE[0]);
        process::run(&mut command)
    };
    let registry = root.read("tenants.toml");
    assert_refused(&run(&["tenants", "add-key", "alice", "--expires-in", "30d"]), "add-key");
    assert_refused(&run(&["tenants", "rotate-key", "alice", "--grace", "1d"]), "rotate-key");
    assert_eq!(root.read("tenants.toml"), registry);
    for arguments in
        [&["check"][..], &["tenants", "list"], &["tenants", "show", "alice"], &["tenants", "suspend", "bob"]]
    {
        run(arguments).success();
    }
}

#[test]
fn the_first_second_of_1970_is_served() {
    let Some(library) = faketime::library(WHAT) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut command = LoneWorker::command(folder.path());
    faketime::set(&mut command, &library, "@1970-01-01 00:00:01");
    let worker = LoneWorker::spawn(&mut command).unwrap();
    worker.client.get("/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1&s=early").ok();
    let answer = worker.client.get(SELECT);
    assert_eq!(answer.ok(), "early");
    assert!(answer.header("date").is_some_and(|date| date.contains("Jan 1970")), "{answer}");
    // libfaketime makes a system call at the end of a process that no worker makes.
    worker.kill();
}
