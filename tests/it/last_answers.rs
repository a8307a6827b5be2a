//! The last response of a connection announces the close, and header names are capitalised, on every port.

use std::net::SocketAddr;

use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::setup::{Setup, key_of};
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::{address, process, wait};

/// Sends bytes on one connection, and reads the answers to its end.
fn answers(client: &Client, bytes: impl AsRef<[u8]>) -> Vec<Answer> {
    let mut connection = client.connect();
    connection.send(bytes.as_ref());
    let mut answers = Vec::new();
    loop {
        let answer = connection.answer();
        let is_last = answer.header("connection") == Some("close");
        answers.push(answer);
        if is_last {
            connection.assert_closed();
            return answers;
        }
    }
}

#[test]
fn first_response_to_pipelined_requests_announces_the_close() {
    let running = Deployment::start(&Setup::default());
    let (alice, stranger) = (running.client_of("alice"), running.client(None));
    alice.post(UPDATE, "kept").ok();
    let get = alice.head("GET", SELECT) + "\r\n";
    let post = alice.head("POST", UPDATE) + "Content-Length: 4\r\n\r\nkept";
    let empty = alice.head("POST", SELECT) + "Content-Length: 0\r\n\r\n";
    let health = stranger.head("GET", "/health") + "\r\n";
    let refused = stranger.head("GET", SELECT) + "\r\n";
    let preflight = stranger.head("OPTIONS", SELECT) + "\r\n";
    let lost = alice.head("GET", &format!("{UPDATE}&s=lost")) + "\r\n";
    for first in [&get, &post, &empty, &health, &refused, &preflight] {
        // Even with only a part of a second request.
        for second in [lost.as_str(), "G"] {
            let answers = answers(&alice, format!("{first}{second}"));
            assert_eq!(answers.len(), 1, "{first}: {answers:?}");
            assert_eq!(alice.get(SELECT).ok(), "kept");
        }
    }
}

#[test]
fn request_during_a_busy_worker_is_not_promised_a_response() {
    let running = Deployment::start(&Setup::default());
    let alice = running.client_of("alice");
    alice.post(UPDATE, "kept").ok();
    let worker = wait::until_some("alice's worker", || running.worker_of("alice"));
    process::signal(worker.pid, rustix::process::Signal::STOP);
    let mut connection = alice.connect();
    connection.send((alice.head("GET", SELECT) + "\r\n").as_bytes());
    let in_flight = "sq_gateway_in_flight{tenant=\"alice\"}";
    let count = || sq_tests::scrape::Scrape::of_gateway(running.address).value(in_flight);
    wait::until("a request in flight", || count() == 1.0);
    connection.send((alice.head("GET", &format!("{UPDATE}&s=lost")) + "\r\n").as_bytes());
    process::signal(worker.pid, rustix::process::Signal::CONT);
    let answer = connection.answer();
    assert_eq!((answer.ok(), answer.header("connection")), ("kept", Some("close")));
    connection.assert_closed();
    assert_eq!(alice.get(SELECT).ok(), "kept");
}

/// Sent one after the other, all requests are answered.
#[test]
fn sequential_requests_stay_on_their_connection() {
    let running = Deployment::start(&Setup::default());
    let alice = running.client_of("alice");
    let mut connection = alice.connect();
    for number in 0..20 {
        let text = format!("text {number}");
        for (request, expected) in [
            (
                format!("{}Content-Length: {}\r\n\r\n{text}", alice.head("POST", UPDATE), text.len()),
                format!("Updated {} bytes", text.len()),
            ),
            (alice.head("GET", SELECT) + "\r\n", text.clone()),
        ] {
            connection.send(request.as_bytes());
            let answer = connection.answer();
            assert_eq!((answer.ok(), answer.header("connection")), (expected.as_str(), Some("keep-alive")));
        }
    }
}

/// Names compare without case, but people read them and search for them with grep.
fn assert_spelled(answer: &Answer, what: &str) {
    for (name, _) in &answer.headers {
        let begins_small = |word: &str| word.starts_with(|first: char| first.is_ascii_lowercase());
        assert!(!name.split('-').any(begins_small), "{what}, {name}: {answer}");
    }
}

#[test]
fn header_names_are_capitalised_on_every_port() {
    let origins = "allow_origins = [\"https://app.example.org\"]".to_owned();
    let running = Deployment::start(&Setup { cors: origins, ..Setup::default() });
    let page = "Origin: https://app.example.org\r\nAccess-Control-Request-Method: GET\r\n";
    let alice = running.client_of("alice");
    let stranger = running.client(None);
    for (client, method, target) in [
        (&alice, "GET", SELECT),
        (&alice, "OPTIONS", SELECT),
        (&alice, "DELETE", SELECT),
        (&alice, "GET", "/none"),
        (&stranger, "GET", SELECT),
        (&stranger, "GET", "/health"),
        (&stranger, "BAD METHOD", "/health"),
        (&stranger, "CONNECT", "/health"),
    ] {
        let answer = client.request(method, target, page, None);
        assert_spelled(&answer, &format!("{method} {target}"));
        if !["BAD METHOD", "CONNECT"].contains(&method) {
            assert!(answer.headers.iter().any(|(name, _)| name == "Access-Control-Allow-Origin"), "{answer}");
        }
        assert!(answer.headers.iter().any(|(name, _)| name == "Vary"), "{answer}");
    }
    let folder = tempfile::tempdir().unwrap();
    let alone = LoneWorker::start(folder.path());
    let port = |port| -> SocketAddr { address::at(running.address, port) };
    for (client, targets) in [
        (running.admin(), ["/admin/tenants", "/metrics", "/health", "/none", "/"]),
        (Client::new(port(1338), None), ["/admin/tenants", "/ready", "/openapi.json", "/admin", "/page"]),
        (Client::new(port(1339), None), ["/status", "/metrics", "/health", "/none", "/"]),
        (running.slot(1341, Some(&key_of("alice"))), [SELECT, "/api/v2/toc?p=text", "/health", "/none", "/"]),
        (alone.client.clone(), [SELECT, "/api/v2/phexts", "/health", "/none", UPDATE]),
    ] {
        for target in targets {
            for method in ["GET", "DELETE", "HEAD"] {
                let request = client.head(method, target) + "Connection: close\r\n\r\n";
                let mut connection = client.connect();
                connection.send(request.as_bytes());
                assert_spelled(&connection.answer_to(method), &format!("{method} {target}"));
            }
        }
        // Responses that no handler sees.
        if let Ok(answer) = {
            let mut bad = client.connect();
            bad.send(b"GET /\r\n\r\n");
            bad.try_answer("GET")
        } {
            assert_spelled(&answer, "a malformed head");
        }
    }
}
