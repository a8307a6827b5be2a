//! Requests that end badly: slow ones, too many, those whose worker or whose client is gone.

use std::thread;

use rustix::process::Signal;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::fake_worker::FakeSystem;
use sq_tests::process;
use sq_tests::root::Root;
use sq_tests::scrape::Scrape;
use sq_tests::setup::Setup;
use sq_tests::wait;

use super::{Expected, SELECT, UPDATE};

#[test]
fn what_is_too_much_or_too_slow_is_counted() {
    let setup = Setup {
        limits: "per_ip = \"4/h\"\nfailed_keys = \"1/h\"\nin_flight = 1".to_owned(),
        timeouts: "head = \"300ms\"".to_owned(),
        ..Setup::default()
    };
    let running = Deployment::start(&setup);
    let mut expected = Expected::default();
    let from = |client: Client, number: u8| {
        client.request("GET", SELECT, &format!("X-Forwarded-For: 203.0.113.{number}\r\n"), None)
    };
    from(running.client(Some("wrong")), 1).problem(401, "invalid_key");
    expected.add("-", "-", 401, "invalid_key");
    from(running.client(Some("wrong")), 1).problem(429, "too_many_failed_keys");
    expected.add("-", "-", 429, "too_many_failed_keys");
    (0..4).for_each(|_| _ = from(running.client_of("alice"), 2).ok());
    (0..4).for_each(|_| expected.add("alice", "select", 200, ""));
    from(running.client_of("alice"), 2).problem(429, "rate_limited_ip");
    expected.add("-", "-", 429, "rate_limited_ip");
    let bob = running.client_of("bob");
    let mut first = bob.connect();
    first.send((bob.head("POST", UPDATE) + "Content-Length: 2\r\nConnection: close\r\n\r\nx").as_bytes());
    let in_flight = "sq_gateway_in_flight{tenant=\"bob\"}";
    wait::until("a request in flight", || Scrape::of_gateway(running.address).value(in_flight) == 1.0);
    from(running.client_of("bob"), 3).problem(429, "too_many_in_flight");
    expected.add("bob", "-", 429, "too_many_in_flight");
    first.send(b"y");
    first.answer().ok();
    expected.add("bob", "update", 200, "");
    let mut slow = running.client(None).connect();
    slow.send(b"GET /health HTTP/1.1\r\n");
    slow.answer().problem(408, "request_timeout");
    expected.add("-", "-", 408, "request_timeout");
    let scrape = expected.assert_counted(running.address);
    assert_eq!(scrape.value(in_flight), 0.0);
}

#[test]
fn a_client_that_goes_away_is_counted_with_status_0() {
    let running = Deployment::start(&Setup::default());
    let alice = running.client_of("alice");
    alice.get(SELECT).ok();
    let mut expected = Expected::default();
    expected.add("alice", "select", 200, "");
    // In the middle of its body.
    let mut connection = alice.connect();
    connection.send((alice.head("POST", UPDATE) + "Content-Length: 10\r\n\r\nhalf").as_bytes());
    drop(connection);
    expected.add("alice", "update", 0, "");
    expected.assert_counted(running.address);
    // While its worker is busy.
    let worker = wait::until_some("alice's worker", || running.worker_of("alice"));
    process::signal(worker.pid, Signal::STOP);
    let mut connection = alice.connect();
    connection.send((alice.head("GET", SELECT) + "\r\n").as_bytes());
    let in_flight = "sq_gateway_in_flight{tenant=\"alice\"}";
    wait::until("a request in flight", || Scrape::of_gateway(running.address).value(in_flight) == 1.0);
    drop(connection);
    expected.add("alice", "select", 0, "");
    expected.assert_counted(running.address);
    process::signal(worker.pid, Signal::CONT);
}

#[test]
fn a_worker_that_does_not_answer_is_counted_and_waited_for() {
    let timeouts = "answer = \"300ms\"".to_owned();
    let running = Deployment::start(&Setup { timeouts, ..Setup::default() });
    let alice = running.client_of("alice");
    alice.get("/api/v2/phexts").ok();
    let worker = wait::until_some("alice's worker", || running.worker_of("alice"));
    process::signal(worker.pid, Signal::STOP);
    alice.get(SELECT).problem(504, "worker_timeout");
    process::signal(worker.pid, Signal::CONT);
    let mut expected = Expected::default();
    expected.add("alice", "phexts", 200, "");
    expected.add("alice", "select", 504, "worker_timeout");
    let scrape = expected.assert_counted(running.address);
    let waited = scrape.value("sq_gateway_upstream_duration_seconds_sum{command=\"select\"}");
    assert!((0.3..wait::PATIENCE.as_secs_f64()).contains(&waited), "{waited} s");
}

#[test]
fn workers_that_die_or_are_not_there_are_counted() {
    let root = Root::new(&Setup::default());
    let FakeSystem { gateway, worker } = FakeSystem::new(&root);
    let client = &gateway.client;
    let answer = thread::scope(|scope| {
        let asking = scope.spawn(|| client.post(UPDATE, "text"));
        (0..5).for_each(|_| _ = worker.receive(None));
        asking.join().unwrap()
    });
    answer.problem(502, "worker_failed");
    drop(worker);
    client.get(SELECT).problem(503, "worker_unavailable");
    let mut expected = Expected::default();
    // The harness asks for a sign of life.
    expected.add("-", "health", 200, "");
    expected.add("alice", "update", 502, "worker_failed");
    expected.add("alice", "select", 503, "worker_unavailable");
    let scrape = expected.assert_counted(root.address);
    // Only the write was sent to a worker, and it was one wait.
    let waits = scrape.of("sq_gateway_upstream_duration_seconds_count");
    let expected = ("sq_gateway_upstream_duration_seconds_count{command=\"update\"}".to_owned(), 1.0);
    assert_eq!(waits.into_iter().collect::<Vec<_>>(), [expected]);
}
