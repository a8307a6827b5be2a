//! A gateway is upgraded and a pool restarted while clients write: no request fails. An upgrade that goes wrong leaves the
//! old gateway serving.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use sq_tests::root::Root;
use sq_tests::separate::{Gateway, Pool};
use sq_tests::setup::{Setup, config_text, key_of};
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::wait;
use sq_tests::writers::{Manner, Writers, Written};

/// Four clients that keep their connections and four that connect for each request.
const BOTH: [(usize, Manner); 2] = [(4, Manner::Kept), (4, Manner::Fresh)];

const PAUSE: Duration = Duration::from_millis(5);

fn root() -> Arc<Root> {
    Arc::new(Root::new(&Setup::default()))
}

/// A system whose gateway has logged something since: gives when it says this.
fn wait_for_line(gateway: &Gateway, line: &str) {
    wait::until(line, || gateway.log().contains(line));
}

#[test]
fn an_upgrade_under_load_fails_no_request_and_loses_no_write() {
    let root = root();
    let _pool = Pool::start(&root);
    let mut gateway = Gateway::serve(&root);
    let writers = Writers::start(&gateway.client_of("alice"), &BOTH, PAUSE, 40);
    for _ in 0..3 {
        let before = gateway.pid();
        gateway = gateway.upgrade();
        assert!(gateway.pid() != before);
        writers.go_on();
    }
    writers.stop().iter().for_each(Written::assert_complete);
    let admin = sq_tests::client::Client::new(sq_tests::address::at(root.address, 1338), None);
    admin.get("/health").ok();
    gateway.stop();
}

#[test]
fn what_is_in_flight_at_an_upgrade_is_finished_by_the_old_one() {
    let root = root();
    let _pool = Pool::start(&root);
    let mut old = Gateway::serve(&root);
    let client = old.client_of("alice");
    let mut upload = client.connect();
    let head = client.head("POST", UPDATE) + "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    upload.send(head.as_bytes());
    assert_eq!(upload.answer().status, 100);
    let mut idle = client.connect();
    let get = client.head("GET", SELECT) + "\r\n";
    idle.send(get.as_bytes());
    assert_eq!(idle.answer().header("connection"), Some("keep-alive"));
    let new = Gateway::begin_upgrade(&root);
    old.signal(Signal::QUIT);
    new.wait_ready();
    wait_for_line(&old, "draining");
    idle.send(get.as_bytes());
    let last = idle.answer();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")), "{last}");
    idle.assert_closed();
    upload.send(b"last");
    let answer = upload.answer();
    assert_eq!((answer.ok(), answer.header("connection")), ("Updated 4 bytes", Some("close")));
    assert_eq!(old.ended().code(), Some(0), "{}", old.log());
    assert_eq!(client.get(SELECT).ok(), "last");
}

#[test]
fn the_signal_may_come_first() {
    let root = root();
    let _pool = Pool::start(&root);
    let mut old = Gateway::serve(&root);
    old.signal(Signal::QUIT);
    wait_for_line(&old, "looking for the new gateway");
    let new = Gateway::begin(&root, &["--upgrade"]);
    new.wait_ready();
    assert_eq!(old.ended().code(), Some(0), "{}", old.log());
    new.client_of("alice").get(SELECT).ok();
}

#[test]
fn an_upgrade_with_a_broken_config_ends_at_once_and_the_old_one_serves_on() {
    let root = root();
    let _pool = Pool::start(&root);
    let mut old = Gateway::serve(&root);
    root.write("gateway.toml", "[gateway]\nlisten = 5\n");
    let outcome = root.with_config(&["serve", "--upgrade"]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("gateway.toml:2"), "{}", outcome.stderr);
    old.client_of("alice").get(SELECT).ok();
    assert!(old.is_running());
}

#[test]
fn an_upgrade_whose_new_address_is_taken_leaves_the_old_one_serving() {
    let root = root();
    let _pool = Pool::start(&root);
    let mut old = Gateway::serve(&root);
    let _taken = std::net::TcpListener::bind((root.address, 1340)).unwrap();
    let setup = Setup { gateway: format!("listen = \"{}:1340\"", root.address), ..Setup::default() };
    root.write("gateway.toml", &config_text(&setup, root.address));
    let mut new = Gateway::begin_upgrade(&root);
    old.signal(Signal::QUIT);
    assert_eq!(new.ended().code(), Some(1));
    assert!(new.log().contains(":1340"), "{}", new.log());
    wait_for_line(&old, "serving on");
    old.client_of("alice").get(SELECT).ok();
    assert!(old.is_running());
}

#[test]
fn a_new_address_is_bound_and_the_old_one_closed() {
    let root = root();
    let _pool = Pool::start(&root);
    let mut old = Gateway::serve(&root);
    let setup = Setup { gateway: format!("listen = \"{}:1340\"", root.address), ..Setup::default() };
    root.write("gateway.toml", &config_text(&setup, root.address));
    let new = Gateway::begin_upgrade(&root);
    old.signal(Signal::QUIT);
    new.wait_ready();
    assert_eq!(old.ended().code(), Some(0), "{}", old.log());
    let moved =
        sq_tests::client::Client::new(sq_tests::address::at(root.address, 1340), Some(&key_of("alice")));
    moved.get(SELECT).ok();
    assert!(old.client_of("alice").try_connect().is_err(), "the old address still accepts");
}

#[test]
fn a_quit_without_a_new_gateway_leaves_it_serving() {
    let root = root();
    let _pool = Pool::start(&root);
    let mut gateway = Gateway::serve(&root);
    let writers = Writers::start(&gateway.client_of("alice"), &BOTH, PAUSE, 40);
    gateway.signal(Signal::QUIT);
    wait_for_line(&gateway, "start `sq-gateway serve --upgrade`");
    writers.go_on();
    writers.stop().iter().for_each(Written::assert_complete);
    assert!(gateway.is_running());
    gateway.upgrade().stop();
}

#[test]
fn a_new_gateway_that_dies_before_it_serves_leaves_the_old_one_serving() {
    let root = root();
    let _pool = Pool::start(&root);
    let mut gateway = Gateway::serve(&root);
    let writers = Writers::start(&gateway.client_of("alice"), &BOTH, PAUSE, 40);
    // It receives the offer, the sockets with it, and dies.
    let socket = UnixListener::bind(root.join("gateway.toml.handover")).unwrap();
    gateway.signal(Signal::QUIT);
    let (predecessor, _) = socket.accept().unwrap();
    let mut offer = String::new();
    BufReader::new(&predecessor).read_line(&mut offer).unwrap();
    assert!(offer.starts_with("{\"version\":2,"), "{offer}");
    drop((predecessor, socket));
    wait_for_line(&gateway, "serving on");
    writers.go_on();
    writers.stop().iter().for_each(Written::assert_complete);
    assert!(gateway.is_running());
    // The file that it has left does not hinder the next one.
    gateway.upgrade().stop();
}

#[test]
fn a_key_that_is_revoked_after_the_upgrade_is_refused_by_the_old_gateway_too() {
    let root = root();
    let _pool = Pool::start(&root);
    let old = Gateway::serve(&root);
    let client = old.client_of("alice");
    let get = client.head("GET", SELECT) + "\r\n";
    let mut kept = client.connect();
    kept.send(get.as_bytes());
    kept.answer().ok();
    let new = Gateway::begin_upgrade(&root);
    old.signal(Signal::QUIT);
    new.wait_ready();
    wait_for_line(&old, "draining");
    let outcome = root.with_config(&["tenants", "revoke-key", "alice", "k1"]);
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
    wait_for_line(&old, "reloaded");
    kept.send(get.as_bytes());
    assert_eq!(kept.answer().status, 401);
}

/// An upgrade in which the old gateway has offered its sockets, and the new one, stopped, has not received them.
fn offered(root: &Arc<Root>) -> (Gateway, Gateway) {
    let old = Gateway::serve(root);
    let new = Gateway::begin_upgrade(root);
    new.signal(Signal::STOP);
    old.signal(Signal::QUIT);
    wait_for_line(&old, "the sockets are offered");
    (old, new)
}

#[test]
fn an_old_gateway_that_dies_in_the_middle_leaves_the_new_one_serving() {
    let root = root();
    let _pool = Pool::start(&root);
    let (mut old, mut new) = offered(&root);
    old.signal(Signal::KILL);
    old.ended();
    // The socket lives: who comes now waits for the new one.
    let client = new.client_of("alice");
    let asking = std::thread::spawn(move || client.get(SELECT));
    new.signal(Signal::CONT);
    asking.join().unwrap().ok();
    wait_for_line(&new, "this gateway serves on the sockets of the one before");
    new.client_of("alice").get(SELECT).ok();
    assert!(new.is_running(), "{}", new.log());
    new.stop();
}

#[test]
fn an_old_gateway_that_is_stopped_in_the_middle_finishes_the_upgrade_first() {
    let root = root();
    let _pool = Pool::start(&root);
    let (mut old, new) = offered(&root);
    let writers = Writers::start(&old.client_of("alice"), &BOTH, PAUSE, 40);
    old.signal(Signal::TERM);
    writers.go_on();
    new.signal(Signal::CONT);
    new.wait_ready();
    assert_eq!(old.ended().code(), Some(0), "{}", old.log());
    writers.go_on();
    writers.stop().iter().for_each(Written::assert_complete);
    new.stop();
}

#[test]
fn a_new_gateway_that_comes_too_late_leaves_and_the_old_one_serves_on() {
    let root = root();
    let _pool = Pool::start(&root);
    let (mut old, mut new) = offered(&root);
    wait_for_line(&old, "serving on:");
    new.signal(Signal::CONT);
    assert_eq!(new.ended().code(), Some(1), "{}", new.log());
    assert!(new.log().contains("keeps its sockets and serves on"), "{}", new.log());
    old.client_of("alice").get(SELECT).ok();
    assert!(old.is_running());
    old.upgrade().stop();
}

#[test]
fn a_socket_file_stays_at_an_upgrade() {
    let root = Arc::new(Root::empty());
    let file = root.join("clients.sock");
    let setup = Setup { gateway: format!("listen = \"unix:{}\"", file.display()), ..Setup::default() };
    root.write("gateway.toml", &config_text(&setup, root.address));
    root.write_registry(&sq_tests::setup::registry_text(&setup.tenants));
    let _pool = Pool::start(&root);
    let gateway = Gateway::serve(&root);
    let asked = || {
        let mut stream = UnixStream::connect(&file).unwrap();
        let head = gateway_head();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(asked().starts_with("HTTP/1.1 200"));
    let gateway = gateway.upgrade();
    assert!(asked().starts_with("HTTP/1.1 200"));
    // Somebody tidied up: the next gateway makes a file of its own, which the one before leaves alone.
    std::fs::remove_file(&file).unwrap();
    let gateway = gateway.upgrade();
    assert!(asked().starts_with("HTTP/1.1 200"));
    gateway.stop();
    assert!(!file.exists(), "the file stays after a stop");
}

fn gateway_head() -> String {
    format!(
        "GET {SELECT} HTTP/1.1\r\nHost: sq\r\nX-SQ-API-Key: {}\r\nConnection: close\r\n\r\n",
        key_of("alice")
    )
}

#[test]
fn a_restart_of_the_pool_under_load_fails_no_request() {
    let root = root();
    let mut pool = Pool::start(&root);
    let gateway = Gateway::serve(&root);
    let writers = Writers::start(&gateway.client_of("alice"), &BOTH, PAUSE, 40);
    for _ in 0..3 {
        pool = pool.restart();
        writers.go_on();
    }
    writers.stop().iter().for_each(Written::assert_complete);
    drop(pool);
}

#[test]
fn a_long_body_waits_for_a_pool_that_is_not_there_yet() {
    let root = root();
    let gateway = Gateway::serve(&root);
    let client = gateway.client_of("alice");
    let long = "x".repeat(1 << 20);
    let body = long.clone();
    let asking = std::thread::spawn(move || client.post(UPDATE, body));
    // It is at the gateway, which has tried.
    wait::pass(Duration::from_millis(300));
    assert!(!asking.is_finished(), "{:?}", asking.join());
    let _pool = Pool::start(&root);
    assert_eq!(asking.join().unwrap().ok(), format!("Updated {} bytes", long.len()));
    assert_eq!(gateway.client_of("alice").get(SELECT).ok(), long);
}

#[test]
fn a_pool_that_stays_away_is_waited_for_and_then_said_to_be_unavailable() {
    let root = root();
    let gateway = Gateway::serve(&root);
    let began = std::time::Instant::now();
    let answer = gateway.client_of("alice").post(UPDATE, "text");
    answer.problem(503, "worker_unavailable");
    let waited = began.elapsed();
    assert!((5..10).contains(&waited.as_secs()), "{waited:?}");
}
