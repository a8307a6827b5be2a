//! The exchange with a worker: what becomes of an answer that is not as ours are, and of the connections on both sides. A
//! listener in the place of the worker says what it likes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::wait::{self, PATIENCE};

use crate::repeats::{Slot, read_head, receive};

const SELECT: &str = "/api/v2/select?p=text&c=1.1.1/1.1.1/1.1.1";
const UPDATE: &str = "/api/v2/update?p=text&c=1.1.1/1.1.1/1.1.1";

const SERVED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const WITHOUT_LENGTH: &str = "HTTP/1.1 200 OK\r\n\r\nsome text";
const WITH_INTERIM: &str =
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a client gets that sends these bytes, while the worker does something.
fn while_asking(slot: &Slot, bytes: &str, worker: impl FnOnce()) -> Answer {
    let client: Client = slot.gateway.client.clone();
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

/// The worker's end of the connection on which the next request comes.
fn accept(slot: &Slot) -> TcpStream {
    let (stream, _) = slot.listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn an_answer_that_ends_with_its_connection_goes_on_in_chunks() {
    let root = Root::new(&Setup::default());
    let (_, answer) = Slot::new(&root).exchange("", None, &[Some(WITHOUT_LENGTH)]);
    assert_eq!((answer.ok(), answer.header("transfer-encoding")), ("some text", Some("chunked")));
}

/// A worker's chunks, of which each byte comes by itself: a read that brings no more than a part of a line is not the end.
#[test]
fn chunks_reach_the_client_however_they_come() {
    const CHUNKED: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsome \r\n04;a=b\r\ntext\r\n0\r\n\r\n";
    let root = Root::new(&Setup::default());
    let slot = Slot::new(&root);
    let head = slot.gateway.client.head("GET", SELECT) + "\r\n";
    let mut connection = slot.gateway.client.connect();
    // On one connection of the client's: the second answer begins where the first one ended.
    for _ in 0..2 {
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                connection.send(head.as_bytes());
                (connection.answer(), connection.unparsed().to_vec())
            });
            let mut stream = accept(&slot);
            stream.set_nodelay(true).unwrap();
            read_head(&mut stream);
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
        let slot = Slot::new(&root);
        let head = slot.gateway.client.head("GET", SELECT).replace("HTTP/1.1", "HTTP/1.0");
        let request = head + keep_alive + "\r\n";
        let answer = while_asking(&slot, &request, || _ = receive(&slot.listener, Some(WITHOUT_LENGTH)));
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
        let slot = Slot::new(&root);
        let request = slot.gateway.client.head("GET", SELECT).replace("HTTP/1.1", version) + "\r\n";
        let mut client = TcpStream::connect(slot.gateway.client.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        receive(&slot.listener, Some(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n9\r\nsome text\r\n")));
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
    let (_, answer) = Slot::new(&root).exchange("", None, &[Some(WITH_INTERIM)]);
    assert_eq!((answer.ok(), answer.header("link")), ("ok", None));
}

#[test]
fn an_answer_before_the_bodys_end_reaches_its_client() {
    let root = Root::new(&Setup::default());
    let slot = Slot::new(&root);
    let head = slot.gateway.client.head("POST", UPDATE) + "Content-Length: 100000\r\n\r\nthe beginning";
    let mut client = slot.gateway.client.connect();
    client.send(head.as_bytes());
    let mut stream = accept(&slot);
    read_head(&mut stream);
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
    let slot = Slot::new(&root);
    let request = slot.gateway.client.head("GET", SELECT) + "\r\n";
    let mut kept = None;
    for _ in 0..3 {
        let answer = while_asking(&slot, &request, || {
            let stream = kept.get_or_insert_with(|| accept(&slot));
            read_head(stream);
            stream.write_all(SERVED.as_bytes()).unwrap();
        });
        answer.ok();
    }
}

#[test]
fn a_connection_is_closed_when_it_has_lain_idle() {
    let root = Root::new(&Setup { pool: "idle_timeout = \"1s\"\n".to_owned(), ..Setup::default() });
    let slot = Slot::new(&root);
    let request = slot.gateway.client.head("GET", SELECT) + "\r\n";
    let mut kept = None;
    let answer = while_asking(&slot, &request, || {
        let stream = kept.insert(accept(&slot));
        read_head(stream);
        stream.write_all(SERVED.as_bytes()).unwrap();
    });
    answer.ok();
    let rest = kept.unwrap().read_to_end(&mut Vec::new());
    assert!(matches!(rest, Ok(0)), "{rest:?}");
}
