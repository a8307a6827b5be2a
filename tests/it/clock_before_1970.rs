//! A clock that stands before 1970, which HTTP's dates and the ids of requests cannot express: it is said at the start, and
//! no request meets a panic, nor on one that is moved there, or to the last second of 9999, under a server. (Linux lets no clock
//! be set so while a server runs.)

use std::process::Command;
use std::sync::Arc;

use sq_tests::client::Client;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::process::{self, Outcome};
use sq_tests::root::Root;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::setup::{ADMIN_KEY, Setup};
use sq_tests::{binaries, faketime, wait};

const WHAT: &str = "a clock before 1970";

/// A day before, ten years before, and in another century.
const BEFORE: [&str; 3] = ["@1969-12-30 12:00:00", "@1960-01-01 00:00:00", "@1901-12-14 00:00:00"];

const SELECT: &str = "/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1";

fn assert_refused(outcome: &Outcome, what: &str) {
    assert_eq!(outcome.code(), Some(1), "{what}: {outcome:?}");
    assert!(outcome.stderr.contains("clock is before 1970"), "{what}: {outcome:?}");
    assert!(!outcome.stderr.contains("panicked") && outcome.stdout.is_empty(), "{what}: {outcome:?}");
}

#[test]
fn no_server_starts_on_it() {
    let Some(library) = faketime::library(WHAT) else { return };
    for time in BEFORE {
        let root = Root::new(&Setup::default());
        let config = root.config();
        let at = |mut command: Command| {
            library.set(&mut command, time);
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
        library.set(&mut command, BEFORE[0]);
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
    library.set(&mut command, "@1970-01-01 00:00:01");
    let worker = LoneWorker::spawn(&mut command).unwrap();
    worker.client.get("/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1&s=early").ok();
    let answer = worker.client.get(SELECT);
    assert_eq!(answer.ok(), "early");
    assert!(answer.header("date").is_some_and(|date| date.contains("Jan 1970")), "{answer}");
    // libfaketime makes a system call at the end of a process that no worker makes.
    worker.kill();
}

#[test]
fn under_a_gateway_that_runs_it_may_stand_anywhere() {
    let Some(library) = faketime::library("a clock that is moved under a gateway") else { return };
    let root = Arc::new(Root::new(&Setup::default()));
    let pool = Pool::start(&root);
    let clock = root.join("clock");
    let stand_at = |time: &str| root.write("clock", time);
    stand_at("2026-01-01 00:00:00");
    let threaded = library.path().with_file_name("libfaketimeMT.so.1");
    let environment = [
        ("LD_PRELOAD", threaded.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("TZ", "UTC"),
    ];
    let gateway = Gateway::begin_with(&root, &[], &environment);
    gateway.wait_ready();
    let client = gateway.client_of("alice");
    let admin = Client::new(root.admin(), Some(ADMIN_KEY));
    let write = || client.get("/api/v2/insert?p=notes&c=1.1.1/1.1.1/1.1.1&s=x");
    write().ok();
    // Before the operator's port was asked for anything.
    for time in ["1969-12-31 23:59:59", "1960-01-01 00:00:00", "1901-12-14 00:00:00"] {
        stand_at(time);
        for answer in [write(), client.get(SELECT), client.get("/health"), client.get("/api/v2/none")] {
            answer.refused(503, "worker_unavailable");
            assert!(answer.text().contains("clock"), "{answer}");
        }
        assert_eq!(admin.get("/admin/tenants").status, 200, "{time}");
        assert_eq!(admin.get("/metrics").status, 200, "{time}");
    }
    for time in ["1970-01-01 00:00:00", "9999-12-31 23:59:59", "2026-01-01 00:00:00"] {
        stand_at(time);
        write().ok();
        assert!(client.get(SELECT).ok().starts_with('x'), "{time}");
        client.get("/api/v2/none").problem(404, "unknown_route");
        assert_eq!(admin.get("/admin/tenants").status, 200, "{time}");
    }
    assert_eq!(client.get(SELECT).ok(), "xxxx");
    // The writes' lines have the time, as near as it can be written.
    for year in ["1970-01-01T00:00:00", "9999-12-30T22:00:00"] {
        wait::until(year, || root.read("audit.log").contains(year));
    }
    drop(gateway);
    pool.stop();
}
