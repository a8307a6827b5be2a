//! SIGTERM to a busy gateway: requests in flight are finished, and later ones are refused instead of cut off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sq_tests::root::Root;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::session::Outcome;
use sq_tests::setup::{Setup, key_of};
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::wait;
use sq_tests::writers::{Manner, Writers};

fn start(setup: &Setup) -> (Arc<Root>, Pool, Gateway) {
    let root = Arc::new(Root::new(setup));
    let (pool, gateway) = (Pool::start(&root), Gateway::serve(&root));
    (root, pool, gateway)
}

fn assert_told(outcome: &Outcome) {
    match outcome {
        Outcome::Answered(answer) => {
            answer.problem(503, "shutting_down");
            assert_eq!(answer.header("connection"), Some("close"), "{answer}");
        }
        Outcome::NotConnected(_) => {}
        Outcome::Cut(error) => panic!("a request was cut off: {error}"),
    }
}

#[test]
fn every_request_under_load_is_served_or_refused() {
    let kinds = [(6, Manner::Kept), (6, Manner::Fresh)];
    for threads in [1, 2] {
        let setup = Setup { gateway: format!("threads = {threads}"), ..Setup::default() };
        let (root, _pool, mut gateway) = start(&setup);
        let writers = Writers::start(&gateway.client_of("alice"), &kinds, Duration::ZERO, 40);
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.log());
        let written = writers.stop();
        let others: Vec<_> = written.iter().map(|client| &client.others).collect();
        // A client that connects after all others have left may find the socket closed, which tells it as much.
        assert!(others.iter().all(|outcomes| !outcomes.is_empty()), "not told: {others:?}");
        others.iter().copied().flatten().for_each(assert_told);
        let refused = |outcome: &Outcome| matches!(outcome, Outcome::Answered(_));
        assert!(others.iter().copied().flatten().any(refused), "nobody was told: {others:?}");
        let _again = Gateway::serve(&root);
        written.iter().for_each(sq_tests::writers::Written::assert_kept);
    }
}

#[test]
fn idle_connection_may_send_another_request() {
    let (_root, _pool, mut gateway) = start(&Setup::default());
    let client = gateway.client_of("alice");
    let get = client.head("GET", SELECT) + "\r\n";
    let mut used = client.connect();
    used.send(get.as_bytes());
    used.answer().ok();
    let mut unused = client.connect();
    let mut silent = client.connect();
    let mut watcher = client.connect();
    gateway.signal(Signal::TERM);
    wait::until("the stop", || gateway.log().contains("draining"));
    let mut late = client.connect();
    for connection in [&mut used, &mut unused, &mut late] {
        connection.send(get.as_bytes());
        let refused = connection.answer();
        refused.problem(503, "shutting_down");
        assert_eq!(refused.header("connection"), Some("close"));
        connection.assert_closed();
    }
    // The process is alive, and not ready.
    watcher.send((client.head("GET", "/health") + "\r\n").as_bytes());
    let alive = watcher.answer();
    assert_eq!((alive.status, alive.header("connection")), (200, Some("close")), "{alive}");
    silent.assert_closed();
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.log());
}

#[test]
fn queued_connections_are_answered_too() {
    let setup = Setup { limits: "connections = 2".to_owned(), ..Setup::default() };
    let (_root, _pool, mut gateway) = start(&setup);
    let client = gateway.client_of("alice");
    let get = client.head("GET", SELECT) + "\r\n";
    let mut upload = client.connect();
    let head = client.head("POST", UPDATE) + "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    upload.send(head.as_bytes());
    assert_eq!(upload.answer().status, 100);
    // The second place, and a queue behind it.
    let mut connections: Vec<_> = (0..20).map(|_| client.connect()).collect();
    gateway.signal(Signal::TERM);
    wait::until("the stop", || gateway.log().contains("draining"));
    for connection in &mut connections {
        connection.send(get.as_bytes());
    }
    // Each connection that closes makes room for the next.
    for mut connection in connections {
        connection.answer().problem(503, "shutting_down");
    }
    upload.send(b"last");
    assert_eq!(upload.answer().ok(), "Updated 4 bytes");
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.log());
}

#[test]
fn slow_request_in_flight_is_finished() {
    let (root, _pool, mut gateway) = start(&Setup::default());
    let client = gateway.client_of("alice");
    let mut upload = client.connect();
    let head = client.head("POST", UPDATE) + "Content-Length: 6\r\n\r\n";
    upload.send(head.as_bytes());
    upload.send(b"0");
    wait::until("the request at the gateway", || sq_tests::process::unread_bytes(address(&root)) == 0);
    gateway.signal(Signal::TERM);
    for piece in ["1", "2", "3", "4", "5"] {
        wait::pass(Duration::from_millis(600));
        upload.send(piece.as_bytes());
    }
    let answer = upload.answer();
    assert_eq!((answer.ok(), answer.header("connection")), ("Updated 6 bytes", Some("close")));
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.log());
    assert_eq!(Gateway::serve(&root).client_of("alice").get(SELECT).ok(), "012345");
}

#[test]
fn stops_at_once_without_connections() {
    let root = Arc::new(Root::new(&Setup::default()));
    let _pool = Pool::start(&root);
    let stop_time = || {
        let mut gateway = Gateway::serve(&root);
        gateway.client_of("alice").get(SELECT).ok();
        let began = Instant::now();
        gateway.signal(Signal::TERM);
        assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.log());
        began.elapsed()
    };
    // An idle connection would be kept for a second, each time. The end of a process may take as long on a busy
    // machine, but not each time.
    let times: Vec<Duration> = std::iter::repeat_with(stop_time).take(3).collect();
    assert!(times.iter().any(|time| *time < Duration::from_millis(900)), "{times:?}");
}

#[test]
fn requests_past_the_drain_are_closed() {
    let setup = Setup { timeouts: "drain = \"1s\"".to_owned(), ..Setup::default() };
    let (_root, _pool, mut gateway) = start(&setup);
    let client = sq_tests::client::Client::new(gateway.client_of("alice").address, Some(&key_of("alice")));
    let mut upload = client.connect();
    let head = client.head("POST", UPDATE) + "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    upload.send(head.as_bytes());
    assert_eq!(upload.answer().status, 100);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.log());
    upload.assert_closed();
}

fn address(root: &Root) -> std::net::SocketAddrV4 {
    std::net::SocketAddrV4::new(root.address, 1337)
}
