//! The exchange with a worker: how an answer that no worker of ours would give is passed on, and when the connections on
//! both sides are closed. A fake worker answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::fake_worker::{FakeSystem, Head, SERVED};
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::wait::{self, PATIENCE};

const WITHOUT_LENGTH: &str = "HTTP/1.1 200 OK\r\n\r\nsome text";
const WITH_INTERIM: &str =
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Sends these bytes while the worker does something; returns the client's answer.
fn while_asking(system: &FakeSystem, bytes: &str, worker: impl FnOnce()) -> Answer {
    let client: Client = system.gateway.client.clone();
    thread::scope(|scope| {
        let asking = scope.spawn(move || {
            let mut connection = client.connect();
            connection.send(bytes.as_bytes());
            connection.answer()
        });
        worker();
        asking.join().unwrap()
    })
}

#[test]
fn an_answer_that_ends_with_its_connection_goes_on_in_chunks() {
    let root = Root::new(&Setup::default());
    let (_, answer) = FakeSystem::new(&root).exchange("", None, &[Some(WITHOUT_LENGTH)]);
    assert_eq!((answer.ok(), answer.header("transfer-encoding")), ("some text", Some("chunked")));
}

/// A worker's chunks, of which each byte comes by itself: a read that brings no more than a part of a line is not the end.
#[test]
fn chunks_reach_the_client_however_they_come() {
    const CHUNKED: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsome \r\n04;a=b\r\ntext\r\n0\r\n\r\n";
    let root = Root::new(&Setup::default());
    let system = FakeSystem::new(&root);
    let head = system.gateway.client.head("GET", SELECT) + "\r\n";
    let mut connection = system.gateway.client.connect();
    // On one connection of the client's: the second answer begins where the first one ended.
    for _ in 0..2 {
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                connection.send(head.as_bytes());
                (connection.answer(), connection.unparsed().to_vec())
            });
            let (mut stream, _) = system.worker.accept_request();
            stream.set_nodelay(true).unwrap();
            for byte in CHUNKED.as_bytes() {
                stream.write_all(&[*byte]).unwrap();
                wait::pass(Duration::from_millis(2));
            }
            let (answer, behind) = asking.join().unwrap();
            assert_eq!((answer.ok(), behind), ("some text", Vec::new()));
        });
    }
}

#[test]
fn a_client_of_http_1_0_knows_no_chunks() {
    for keep_alive in ["", "Connection: keep-alive\r\n"] {
        let root = Root::new(&Setup::default());
        let system = FakeSystem::new(&root);
        let head = system.gateway.client.head("GET", SELECT).replace("HTTP/1.1", "HTTP/1.0");
        let request = head + keep_alive + "\r\n";
        let answer = while_asking(&system, &request, || _ = system.worker.receive(Some(WITHOUT_LENGTH)));
        assert_eq!((answer.ok(), answer.header("transfer-encoding")), ("some text", None));
        assert_eq!(answer.header("connection"), Some("close"));
    }
}

/// An answer that breaks off is never one that has ended.
#[test]
fn a_worker_that_dies_in_the_middle_of_an_answer() {
    for (version, head) in [
        ("HTTP/1.1", "Content-Length: 100"),
        ("HTTP/1.1", "Transfer-Encoding: chunked"),
        ("HTTP/1.0", "Transfer-Encoding: chunked"),
    ] {
        let root = Root::new(&Setup::default());
        let system = FakeSystem::new(&root);
        let request = system.gateway.client.head("GET", SELECT).replace("HTTP/1.1", version) + "\r\n";
        let mut client = TcpStream::connect(system.gateway.client.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        system.worker.receive(Some(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n9\r\nsome text\r\n")));
        let mut got = Vec::new();
        let end = client.read_to_end(&mut got);
        let got = String::from_utf8_lossy(&got);
        // With a length the head may not have left yet.
        let is_whole = if version == "HTTP/1.1" { got.ends_with("0\r\n\r\n") } else { end.is_ok() };
        assert!(!is_whole, "{version}, {head}: {end:?}, {got}");
    }
}

#[test]
fn an_interim_answer_is_for_who_asked_for_one() {
    let root = Root::new(&Setup::default());
    let (_, answer) = FakeSystem::new(&root).exchange("", None, &[Some(WITH_INTERIM)]);
    assert_eq!((answer.ok(), answer.header("link")), ("ok", None));
}

#[test]
fn an_answer_before_the_bodys_end_reaches_its_client() {
    let root = Root::new(&Setup::default());
    let system = FakeSystem::new(&root);
    let head = system.gateway.client.head("POST", UPDATE) + "Content-Length: 100000\r\n\r\nthe beginning";
    let mut client = system.gateway.client.connect();
    client.send(head.as_bytes());
    let (mut stream, _) = system.worker.accept_request();
    let mut beginning = [0; 13];
    stream.read_exact(&mut beginning).unwrap();
    stream.write_all(SERVED.as_bytes()).unwrap();
    let answer = client.answer();
    assert_eq!((answer.ok(), answer.header("connection")), ("ok", Some("close")));
    client.send(b", and more of it");
    let mut more = Vec::new();
    stream.read_to_end(&mut more).unwrap();
    assert_eq!(more, b"", "the worker sees no more of it");
    client.assert_closed();
}

#[test]
fn a_connection_is_used_again() {
    let root = Root::new(&Setup::default());
    let system = FakeSystem::new(&root);
    let request = system.gateway.client.head("GET", SELECT) + "\r\n";
    let mut kept = None;
    for _ in 0..3 {
        let answer = while_asking(&system, &request, || {
            let stream = kept.get_or_insert_with(|| system.worker.accept());
            Head::expect(stream);
            stream.write_all(SERVED.as_bytes()).unwrap();
        });
        answer.ok();
    }
}

#[test]
fn a_connection_is_closed_when_it_has_lain_idle() {
    let root = Root::new(&Setup { pool: "idle_timeout = \"1s\"\n".to_owned(), ..Setup::default() });
    let system = FakeSystem::new(&root);
    let request = system.gateway.client.head("GET", SELECT) + "\r\n";
    let mut kept = None;
    let answer = while_asking(&system, &request, || {
        let stream = kept.insert(system.worker.accept());
        Head::expect(stream);
        stream.write_all(SERVED.as_bytes()).unwrap();
    });
    answer.ok();
    let rest = kept.unwrap().read_to_end(&mut Vec::new());
    assert!(matches!(rest, Ok(0)), "{rest:?}");
}
