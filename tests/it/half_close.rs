//! Clients that send a whole request and end their side of the connection (RFC 9112, 9.6), as `nc -N` and scripts do: they
//! get their answers, from every port. One that is gone is known all the same, and its place is free.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use rustix::process::Signal;
use sq_tests::answer::Answer;
use sq_tests::client::{Client, Connection};
use sq_tests::deployment::{Deployment, Worker};
use sq_tests::fake_worker::FakeSystem;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::root::Root;
use sq_tests::scrape::Scrape;
use sq_tests::setup::{Setup, key_of};
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::wait::PATIENCE;
use sq_tests::{address, process, wait};

const IN_FLIGHT: &str = "sq_gateway_in_flight{tenant=\"alice\"}";

/// Longer than what a connection's buffers take, and than what is kept of a body.
const LONG_BYTES: usize = 8 << 20;

/// Sends a request and ends its side.
fn half_closed(client: &Client, request: impl AsRef<[u8]>) -> Connection {
    let mut connection = client.connect();
    connection.send(request.as_ref());
    connection.finish_sending();
    connection
}

/// What a request gets whose client ends its side. The connection ends with it, which the answer says unless it was faster
/// than the end.
fn asked(client: &Client, method: &str, request: impl AsRef<[u8]>) -> Answer {
    let request = request.as_ref();
    let mut connection = half_closed(client, request);
    let line = String::from_utf8_lossy(request.get(..60).unwrap_or(request)).into_owned();
    let answer = connection.try_answer(method).unwrap_or_else(|error| panic!("{line}: {error}"));
    connection.assert_closed();
    answer
}

fn get(client: &Client, target: &str) -> String {
    client.head("GET", target) + "\r\n"
}

fn post(client: &Client, target: &str, body: &str) -> String {
    client.head("POST", target) + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_clients_port_answers() {
    let running = Deployment::start(&Setup::default());
    let alice = running.client_of("alice");
    let long = "x".repeat(LONG_BYTES);
    // The first one wakes its worker.
    for text in ["short", &long] {
        let answer = asked(&alice, "POST", post(&alice, UPDATE, text));
        assert_eq!(answer.ok(), format!("Updated {} bytes", text.len()));
        assert_eq!(asked(&alice, "GET", get(&alice, SELECT)).ok(), text);
    }
    let chunked = alice.head("POST", UPDATE) + "Transfer-Encoding: chunked\r\n\r\n4\r\ntext\r\n0\r\n\r\n";
    assert_eq!(asked(&alice, "POST", chunked).ok(), "Updated 4 bytes");
    for keep_alive in ["", "Connection: keep-alive\r\n"] {
        let old = alice.head("GET", SELECT).replace("HTTP/1.1", "HTTP/1.0") + keep_alive + "\r\n";
        let answer = asked(&alice, "GET", old);
        assert_eq!(answer.ok(), "text");
    }
    // What the gateway answers itself.
    let stranger = running.client(None);
    for (method, client, target, status) in [
        ("GET", &stranger, "/health", 200),
        ("HEAD", &stranger, "/ready", 200),
        ("OPTIONS", &stranger, SELECT, 204),
        ("GET", &stranger, SELECT, 401),
        ("GET", &alice, "/none", 404),
        ("DELETE", &alice, SELECT, 405),
    ] {
        let answer = asked(client, method, client.head(method, target) + "\r\n");
        assert_eq!(answer.status, status, "{method} {target}: {answer}");
    }
}

#[test]
fn a_worker_answers() {
    let folder = tempfile::tempdir().unwrap();
    let alone = LoneWorker::start(folder.path());
    let running = Deployment::start(&Setup::default());
    let long = "x".repeat(LONG_BYTES);
    for worker in [&alone.client, &running.slot(1341, Some(&key_of("alice")))] {
        for text in ["short", &long] {
            let answer = asked(worker, "POST", post(worker, UPDATE, text));
            assert_eq!(answer.ok(), format!("Updated {} bytes", text.len()));
            assert_eq!(asked(worker, "GET", get(worker, SELECT)).ok(), text);
        }
        assert_eq!(asked(worker, "GET", get(worker, "/api/v2/none")).status, 404);
        asked(worker, "GET", get(worker, "/health")).ok();
    }
}

#[test]
fn the_operators_ports_answer() {
    let running = Deployment::start(&Setup::default());
    let admin = running.admin();
    let body = "{\"name\":\"carol\"}";
    let answer = asked(&admin, "POST", post(&admin, "/admin/tenants/add", body));
    assert_eq!(answer.status, 201, "{answer}");
    let key = answer.json()["key"].as_str().unwrap().to_owned();
    wait::until("carol's key", || running.client(Some(&key)).get(SELECT).status == 200);
    for target in ["/admin/tenants", "/metrics", "/health"] {
        asked(&admin, "GET", get(&admin, target)).ok();
    }
    asked(&admin, "DELETE", admin.head("DELETE", "/admin/tenants/carol") + "\r\n").ok();
    let pool = Client::new(address::at(running.address, 1339), None);
    for target in ["/status", "/metrics", "/health"] {
        asked(&pool, "GET", get(&pool, target)).ok();
    }
}

/// Of a request that breaks off nothing is written.
#[test]
fn half_a_body_is_no_write() {
    let running = Deployment::start(&Setup::default());
    let (alice, worker) = (running.client_of("alice"), running.slot(1341, Some(&key_of("alice"))));
    alice.post(UPDATE, "kept").ok();
    for client in [&alice, &worker] {
        for half in [
            "Content-Length: 10\r\n\r\nhalf".to_owned(),
            "Content-Length: 10\r\n\r\n".to_owned(),
            format!("Content-Length: 200000\r\n\r\n{}", "x".repeat(100_000)),
            "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_owned(),
        ] {
            let mut connection = half_closed(client, client.head("POST", UPDATE) + &half);
            if let Ok(answer) = connection.try_answer("POST") {
                assert_eq!(answer.status, 400, "{answer}");
            }
            connection.assert_closed();
            assert_eq!(alice.get(SELECT).ok(), "kept");
        }
    }
}

/// alice's worker, stopped.
fn stop_worker(running: &Deployment) -> Worker {
    running.client_of("alice").get(SELECT).ok();
    let worker = wait::until_some("alice's worker", || running.worker_of("alice"));
    process::signal(worker.pid, Signal::STOP);
    worker
}

fn wait_for_in_flight(running: &Deployment, count: f64) {
    wait::until("so many requests in flight", || {
        Scrape::of_gateway(running.address).value(IN_FLIGHT) == count
    });
}

#[test]
fn who_waits_gets_the_answer_however_long_the_worker_takes() {
    let running = Deployment::start(&Setup::default());
    let alice = running.client_of("alice");
    alice.post(UPDATE, "text").ok();
    let worker = stop_worker(&running);
    let old = get(&alice, SELECT).replace("HTTP/1.1", "HTTP/1.0");
    let mut waiting = [half_closed(&alice, get(&alice, SELECT)), half_closed(&alice, old)];
    for connection in &mut waiting {
        assert!(connection.hears_within(PATIENCE), "the answer has begun");
    }
    wait_for_in_flight(&running, 2.0);
    process::signal(worker.pid, Signal::CONT);
    for connection in &mut waiting {
        let answer = connection.answer();
        assert_eq!((answer.ok(), answer.header("connection")), ("text", Some("close")));
        connection.assert_closed();
    }
}

#[test]
fn who_waits_in_vain_is_told_so() {
    let running = Deployment::start(&Setup { timeouts: "answer = \"2s\"".to_owned(), ..Setup::default() });
    let alice = running.client_of("alice");
    let worker = stop_worker(&running);
    let mut waiting = half_closed(&alice, get(&alice, SELECT));
    waiting.answer().problem(504, "worker_timeout");
    waiting.assert_closed();
    process::signal(worker.pid, Signal::CONT);
}

#[test]
fn who_is_gone_frees_the_place() {
    let running = Deployment::start(&Setup { limits: "in_flight = 2".to_owned(), ..Setup::default() });
    let alice = running.client_of("alice");
    let worker = stop_worker(&running);
    // At once, by a reset, and after the answer has begun, read or not.
    let leave_at_once = |stream: TcpStream| drop(stream);
    let leave_with_unread_bytes = |mut stream: TcpStream| {
        stream.read_exact(&mut [0]).unwrap();
        while stream.peek(&mut [0]).unwrap() == 0 {}
    };
    let leave_in_silence = |mut stream: TcpStream| stream.read_exact(&mut [0]).unwrap();
    for leave in [leave_at_once as fn(TcpStream), leave_with_unread_bytes, leave_in_silence] {
        for target in [SELECT, UPDATE] {
            let mut stream = TcpStream::connect(alice.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let request = if target == UPDATE { post(&alice, target, "lost") } else { get(&alice, target) };
            stream.write_all(request.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            wait_for_in_flight(&running, 1.0);
            leave(stream);
            wait_for_in_flight(&running, 0.0);
        }
    }
    process::signal(worker.pid, Signal::CONT);
    running.client_of("alice").get(SELECT).ok();
}

/// The worker's answer comes in parts, long after the client ended its side.
#[test]
fn a_slow_answer_arrives_whole() {
    let root = Root::new(&Setup::default());
    let system = FakeSystem::new(&root);
    let client: Client = system.gateway.client.clone();
    for (head, parts) in [
        ("Content-Length: 10", ["", "01234", "56789"]),
        ("Transfer-Encoding: chunked", ["5\r\n01234", "\r\n5\r\n56789\r\n", "0\r\n\r\n"]),
    ] {
        let mut connection = half_closed(&client, get(&client, SELECT));
        let (mut stream, _) = system.worker.accept_request();
        assert!(connection.hears_within(PATIENCE), "the answer has begun");
        thread::scope(|scope| {
            let answering = scope.spawn(|| connection.answer());
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes()).unwrap();
            for part in parts {
                wait::pass(std::time::Duration::from_millis(300));
                stream.write_all(part.as_bytes()).unwrap();
            }
            assert_eq!(answering.join().unwrap().ok(), "0123456789");
        });
    }
}
