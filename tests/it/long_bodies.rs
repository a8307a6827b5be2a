//! Bodies that are too long to be sent again. None is lost to a worker that has not been told of the key yet, or that goes just
//! then: a worker is sent nothing of such a body before it has checked the key and asks for it.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use sq_tests::answer::Answer;
use sq_tests::client::{Client, chunk_of};
use sq_tests::deployment::Deployment;
use sq_tests::fake_worker::{FakeSystem, SERVED};
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::{process, wait};

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// What is kept of a body to send it again.
const KEPT_BYTES: usize = 64 << 10;

fn long() -> Vec<u8> {
    vec![b'x'; 3 << 20]
}

/// Three ways to send a long body.
fn ways() -> [fn(&Client) -> Answer; 3] {
    [
        |client| client.post(UPDATE, long()),
        |client| client.post_chunks(UPDATE, &long().chunks(100_000).collect::<Vec<_>>()),
        |client| {
            let mut connection = client.connect();
            let length = long().len();
            let head = client.head("POST", UPDATE)
                + &format!("Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n");
            connection.send(head.as_bytes());
            assert_eq!(connection.answer().status, 100);
            connection.send(&long());
            connection.answer()
        },
    ]
}

fn assert_served(client: &Client, answer: &Answer) {
    assert_eq!(answer.ok(), format!("Updated {} bytes", long().len()));
    assert_eq!(client.get(SELECT).ok().len(), long().len());
}

fn key_in(answer: &Answer) -> String {
    answer.json()["key"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn the_first_request_with_a_new_key_may_be_a_long_one() {
    let running = Deployment::start(&Setup::default());
    let admin = running.admin();
    for (number, post) in ways().into_iter().cycle().take(9).enumerate() {
        let body = format!("{{\"name\":\"new-{number}\"}}");
        let added = admin.request("POST", "/admin/tenants/add", "", Some(body.as_bytes()));
        assert_eq!(added.status, 201, "{added}");
        let client = running.client(Some(&key_in(&added)));
        let answer = post(&client);
        assert_served(&client, &answer);
        // Its worker runs now, and is not told of the next key by its start.
        let keys = format!("/admin/tenants/new-{number}/keys");
        let added = admin.request("POST", &keys, "", Some(b"{}"));
        assert_eq!(added.status, 201, "{added}");
        let client = running.client(Some(&key_in(&added)));
        let answer = post(&client);
        assert_served(&client, &answer);
    }
}

/// The pool is kept from telling the worker.
#[test]
fn a_long_body_waits_until_the_worker_knows_its_key() {
    let running = Deployment::start(&Setup::default());
    running.client_of("alice").get(SELECT).ok();
    let worker = wait::until_some("alice's worker", || running.worker_of("alice"));
    let pool = process::parent(worker.pid).unwrap();
    for post in ways() {
        process::signal(pool, Signal::STOP);
        let added = running.admin().request("POST", "/admin/tenants/alice/keys", "", Some(b"{}"));
        let key: Value = added.json()["key"].clone();
        let client = running.client(key.as_str());
        thread::scope(|scope| {
            let asking = scope.spawn(|| post(&client));
            wait::pass(Duration::from_millis(700));
            assert!(!asking.is_finished(), "the worker knows the key already");
            process::signal(pool, Signal::CONT);
            assert_served(&client, &asking.join().unwrap());
        });
    }
}

/// A key that is taken back is refused, however long the body is.
#[test]
fn a_long_body_with_a_wrong_key_is_refused() {
    let running = Deployment::start(&Setup::default());
    for key in ["wrong", "pmb-v1-00000000000000000000000000000000"] {
        running.client(Some(key)).post(UPDATE, long()).problem(401, "invalid_key");
    }
    running.slot(1341, Some("wrong")).post(UPDATE, long()).refused(401, "invalid_key");
}

#[test]
fn a_worker_that_went_takes_no_long_body_with_it() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    for post in ways() {
        for signal in [Signal::KILL, Signal::TERM] {
            client.get(SELECT).ok();
            let worker = wait::until_some("alice's worker", || running.worker_of("alice"));
            // The gateway has kept a connection to it.
            process::signal(worker.pid, signal);
            assert_served(&client, &post(&client));
        }
    }
}

/// What a worker sees of a body: nothing before it asks, and all of it then, however often others went or knew no key.
#[test]
fn nothing_of_a_long_body_is_sent_before_it_is_asked_for() {
    const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
    let root = Root::new(&Setup::default());
    let system = FakeSystem::new(&root);
    let client = system.gateway.client.clone();
    for body in [vec![b'x'; KEPT_BYTES + 1], long()] {
        thread::scope(|scope| {
            let asking = scope.spawn(|| client.post(UPDATE, &body));
            for reply in ["", "HTTP/1.1 103 Early Hints\r\n\r\n", REFUSED] {
                let (mut stream, head) = system.worker.accept_request();
                assert_eq!(head.values("expect"), ["100-continue"]);
                stream.write_all(reply.as_bytes()).unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                assert!(!matches!(stream.read(&mut [0]), Ok(1)), "it was sent something");
            }
            let (mut stream, _) = system.worker.accept_request();
            stream.write_all(CONTINUE.as_bytes()).unwrap();
            let mut came = vec![0; body.len()];
            stream.read_exact(&mut came).unwrap();
            assert_eq!(came, body);
            stream.write_all(SERVED.as_bytes()).unwrap();
            assert_eq!(asking.join().unwrap().ok(), "ok");
        });
    }
}

#[test]
fn a_short_body_comes_at_once_and_is_sent_again() {
    let root = Root::new(&Setup::default());
    let system = FakeSystem::new(&root);
    let client = system.gateway.client.clone();
    thread::scope(|scope| {
        let asking = scope.spawn(|| client.post(UPDATE, vec![b'x'; KEPT_BYTES]));
        for reply in ["", SERVED] {
            let (mut stream, head) = system.worker.accept_request();
            assert_eq!(head.values("expect"), [""; 0]);
            stream.read_exact(&mut vec![0; KEPT_BYTES]).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        }
        asking.join().unwrap().ok();
    });
}

/// A worker's refusal needs no body; nor does the client have to send it to the end.
#[test]
fn a_refusal_comes_before_the_body() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    let mut connection = client.connect();
    let head = client.head("POST", UPDATE) + "If-Match: malformed\r\nContent-Length: 3000000\r\n\r\n";
    connection.send(head.as_bytes());
    connection.answer().problem(400, "invalid_parameter");
    // In chunks, of which the client has sent one.
    let mut connection = client.connect();
    connection.send(
        (client.head("POST", UPDATE) + "If-Match: malformed\r\nTransfer-Encoding: chunked\r\n\r\n")
            .as_bytes(),
    );
    connection.send(&chunk_of(b"text"));
    connection.answer().problem(400, "invalid_parameter");
}

/// One that says nothing gets the body all the same, after a while.
#[test]
fn a_worker_that_does_not_ask_is_sent_the_body_after_a_while() {
    let root = Root::new(&Setup { timeouts: "answer = \"1s\"".to_owned(), ..Setup::default() });
    let system = FakeSystem::new(&root);
    let client = system.gateway.client.clone();
    thread::scope(|scope| {
        let asking = scope.spawn(|| client.post(UPDATE, long()));
        let began = Instant::now();
        let (mut stream, _) = system.worker.accept_request();
        stream.read_exact(&mut vec![0; long().len()]).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
        stream.write_all(SERVED.as_bytes()).unwrap();
        asking.join().unwrap().ok();
    });
}
