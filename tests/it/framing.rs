//! HTTP/1.1 to the letter: what two servers might read in two ways is refused, so nothing can be smuggled past the
//! gateway.

use std::time::{Duration, Instant};

use sq_tests::client::{Client, Connection, chunk_of};
use sq_tests::deployment::Deployment;
use sq_tests::setup::Setup;
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::wait;

/// A running system with one scroll, and a client of it. A request that gets past the gateway by a
/// trick would change the scroll.
fn deployment() -> (Deployment, Client) {
    with_timeouts("")
}

fn with_timeouts(timeouts: &str) -> (Deployment, Client) {
    let running = Deployment::start(&Setup { timeouts: timeouts.to_owned(), ..Setup::default() });
    let client = running.client_of("alice");
    client.post(UPDATE, "kept").ok();
    (running, client)
}

fn assert_unchanged(client: &Client) {
    assert_eq!(client.get(SELECT).ok(), "kept");
    assert_eq!(client.get("/api/v2/toc?p=text").ok().lines().count(), 1);
}

/// Sends bytes, and expects `bad_request` and the end of the connection.
fn assert_refused(client: &Client, what: &str, bytes: &[u8]) {
    let mut connection = client.connect();
    connection.send(bytes);
    let answer = connection.try_answer("POST").unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(answer.status, 400, "{what}: {answer}");
    answer.problem(400, "bad_request");
    connection.assert_closed();
    assert_unchanged(client);
}

fn post(client: &Client, headers: &str, body: &str) -> Vec<u8> {
    (client.head("POST", UPDATE) + headers + "\r\n" + body).into_bytes()
}

#[test]
fn a_length_and_chunks_together() {
    let (_running, client) = deployment();
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    assert_refused(
        &client,
        "CL, TE",
        &post(&client, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunks),
    );
    assert_refused(
        &client,
        "TE, CL",
        &post(&client, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", chunks),
    );
    assert_refused(
        &client,
        "CL 0",
        &post(&client, "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", chunks),
    );
}

#[test]
fn two_lengths() {
    let (_running, client) = deployment();
    for (what, headers) in [
        ("equal", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        ("different", "Content-Length: 5\r\nContent-Length: 4\r\n"),
        ("equal in a list", "Content-Length: 5, 5\r\n"),
        ("different in a list", "Content-Length: 5, 4\r\n"),
    ] {
        assert_refused(&client, what, &post(&client, headers, "hello"));
    }
}

#[test]
fn a_length_that_is_no_number() {
    let (_running, client) = deployment();
    for value in
        ["+3", "-3", "3 3", "0x3", "3.0", "three", "", "18446744073709551615", "99999999999999999999999"]
    {
        let headers = format!("Content-Length: {value}\r\n");
        let mut connection = client.connect();
        connection.send(&post(&client, &headers, "hello"));
        let answer = connection.answer();
        // A length beyond any number may also be called too large.
        assert!([400, 413].contains(&answer.status), "{value:?}: {answer}");
        connection.assert_closed();
        assert_unchanged(&client);
    }
    assert_refused(&client, "+3", &post(&client, "Content-Length: +3\r\n", "hello"));
}

#[test]
fn a_transfer_encoding_that_is_not_chunked_alone() {
    let (_running, client) = deployment();
    for value in
        ["chunked, gzip", "gzip, identity", "identity", "chunked, chunked", "xchunked", "chunked;a=b", ""]
    {
        let headers = format!("Transfer-Encoding: {value}\r\n");
        assert_refused(&client, value, &post(&client, &headers, "5\r\nhello\r\n0\r\n\r\n"));
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n";
    assert_refused(&client, "two fields", &post(&client, twice, "5\r\nhello\r\n0\r\n\r\n"));
}

#[test]
fn header_lines_that_can_be_read_in_two_ways() {
    let (_running, client) = deployment();
    for (what, headers) in [
        ("folded", "X-A: one\r\n two\r\nContent-Length: 5\r\n"),
        ("folded with a tab", "X-A: one\r\n\ttwo\r\nContent-Length: 5\r\n"),
        ("a space before the colon", "X-A : one\r\nContent-Length: 5\r\n"),
        ("a space before the length's colon", "Content-Length : 5\r\n"),
        ("no colon", "X-A one\r\nContent-Length: 5\r\n"),
        ("no name", ": one\r\nContent-Length: 5\r\n"),
        ("a name with a space", "X A: one\r\nContent-Length: 5\r\n"),
        ("a bare LF", "X-A: one\nContent-Length: 5\r\n"),
        ("a bare CR", "X-A: one\rX-B: two\r\nContent-Length: 5\r\n"),
        ("a NUL", "X-A: o\0ne\r\nContent-Length: 5\r\n"),
        ("a control byte", "X-A: o\u{1}ne\r\nContent-Length: 5\r\n"),
        ("a DEL", "X-A: o\u{7f}ne\r\nContent-Length: 5\r\n"),
    ] {
        assert_refused(&client, what, &post(&client, headers, "hello"));
    }
    let bare =
        String::from_utf8(post(&client, "Content-Length: 5\r\n", "hello")).unwrap().replace("\r\n", "\n");
    assert_refused(&client, "bare LF everywhere", bare.as_bytes());
}

#[test]
fn no_host_and_two_hosts() {
    let (_running, client) = deployment();
    let without = client.head("GET", SELECT).replace("Host:", "X-Host:") + "\r\n";
    assert_refused(&client, "no Host", without.as_bytes());
    let host = format!("Host: {}\r\n", client.address);
    assert_refused(&client, "two equal", (client.head("GET", SELECT) + &host + "\r\n").as_bytes());
    assert_refused(&client, "two different", (client.head("GET", SELECT) + "Host: other\r\n\r\n").as_bytes());
}

#[test]
fn request_lines_that_are_none() {
    let (_running, client) = deployment();
    let rest = client.head("GET", SELECT).split_once("\r\n").unwrap().1.to_owned() + "\r\n";
    for line in [
        "GET",
        "GET /health",
        "GET  /health HTTP/1.1",
        "GET /health  HTTP/1.1",
        "GET /he alth HTTP/1.1",
        "G@T /health HTTP/1.1",
        "GET /health HTTP/1.1 ",
        "GET /health HTTP/x",
        " GET /health HTTP/1.1",
    ] {
        assert_refused(&client, line, format!("{line}\r\n{rest}").as_bytes());
    }
    let mut garbage = client.connect();
    garbage.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n");
    garbage.answer().problem(400, "bad_request");
}

#[test]
fn chunks_that_are_none() {
    let (_running, client) = deployment();
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (what, body) in [
        ("a bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("a bare LF after the data", "5\r\nhello\n0\r\n\r\n"),
        ("a size that is no number", "five\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a size beyond any number", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("more data than the size", "3\r\nhello\r\n0\r\n\r\n"),
    ] {
        let mut connection = client.connect();
        connection.send(&post(&client, chunked, body));
        let answer = connection.try_answer("POST").unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!([400, 413].contains(&answer.status), "{what}: {answer}");
        connection.assert_closed();
        assert_unchanged(&client);
    }
}

#[test]
fn chunk_extensions_and_trailers_are_dropped() {
    let (_running, client) = deployment();
    let headers = "Transfer-Encoding: chunked\r\nTrailer: X-SQ-API-Key\r\nConnection: close\r\n";
    let body = "4;name=value\r\nke\u{fe}\r\n1;a=\"b\"\r\nt\r\n0\r\nX-SQ-API-Key: pmb-v1-bob-key\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(client.raw(post(&client, headers, body)).ok(), "Updated 5 bytes");
    assert_eq!(client.get(SELECT).ok(), "ke\u{fe}t");
}

/// Servers disagree most about where chunks end, so nothing after them is taken for a request.
#[test]
fn a_connection_ends_with_chunks() {
    let (_running, client) = deployment();
    let second = client.head("GET", &format!("{UPDATE}&s=smuggled")) + "\r\n";
    for body in ["4\r\nkept\r\n0\r\n\r\n", "4;\nxx\r\nkept\r\n0\r\n\r\n", "4\r\nkept\r\n\r\n\r\n"] {
        let mut connection = client.connect();
        connection.send(&post(&client, "Transfer-Encoding: chunked\r\n", body));
        assert_eq!(connection.answer().ok(), "Updated 4 bytes", "{body:?}");
        connection.send(second.as_bytes());
        connection.assert_closed();
        assert_unchanged(&client);
    }
}

#[test]
fn a_body_that_ends_early_is_not_stored() {
    let (_running, client) = deployment();
    for (headers, body) in [
        ("Content-Length: 10\r\n", "hello"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked\r\n", "a\r\nhello"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n"),
    ] {
        let mut connection = client.connect();
        connection.send(&post(&client, headers, body));
        connection.finish_sending();
        if let Ok(answer) = connection.try_answer("POST") {
            assert_ne!(answer.status, 200, "half a body was taken: {answer}");
        }
        assert_unchanged(&client);
    }
}

#[test]
fn a_smuggled_request_reaches_no_worker() {
    let (_running, client) = deployment();
    let smuggled = client.head("GET", "/api/v2/update?p=text&c=1.1.1/1.1.1/1.1.1&s=smuggled") + "\r\n";
    let size = smuggled.len();
    for (what, headers, body) in [
        (
            "CL.TE",
            format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", size + 5),
            format!("0\r\n\r\n{smuggled}"),
        ),
        (
            "TE.CL",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n".to_owned(),
            format!("{size:x}\r\n{smuggled}\r\n0\r\n\r\n"),
        ),
        (
            "TE hidden by a tab",
            "Transfer-Encoding:\tchunked\r\nContent-Length: 4\r\n".to_owned(),
            format!("0\r\n\r\n{smuggled}"),
        ),
        (
            "TE with a vertical tab",
            "Transfer-Encoding: \u{b}chunked\r\nContent-Length: 4\r\n".to_owned(),
            format!("0\r\n\r\n{smuggled}"),
        ),
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {size}\r\n"), smuggled.clone()),
        (
            "a header split by LF",
            format!("X-A: b\nContent-Length: {size}\r\nContent-Length: 0\r\n"),
            smuggled.clone(),
        ),
    ] {
        assert_refused(&client, what, &post(&client, &headers, &body));
    }
    // In a body it is text, even if it looks like a request.
    let body = smuggled.replace("\r\n", "\n");
    client.request("POST", "/api/v2/update?p=other&c=1.1.1/1.1.1/1.1.1", "", Some(body.as_bytes())).ok();
    assert_unchanged(&client);
}

#[test]
fn of_pipelined_requests_the_first_is_answered() {
    let (running, client) = deployment();
    // The first response waits for a worker's start, so the second request arrives long before it.
    let sleeping = running.client_of("bob");
    let mut connection = sleeping.connect();
    let both = (sleeping.head("GET", &format!("{UPDATE}&s=first")) + "\r\n")
        + &(sleeping.head("GET", &format!("{UPDATE}&s=second")) + "\r\n");
    connection.send(both.as_bytes());
    assert_eq!(connection.answer().ok(), "Updated 5 bytes");
    connection.assert_closed();
    assert_eq!(sleeping.get(SELECT).ok(), "first");

    let first = client.head("GET", SELECT) + "\r\n";
    let second = client.head("GET", &format!("{UPDATE}&s=second")) + "\r\n";
    let mut connection = client.connect();
    connection.send((first + &second).as_bytes());
    assert_eq!(connection.answer().ok(), "kept");
    connection.assert_closed();
    assert_unchanged(&client);
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let (_running, client) = deployment();
    let mut connection = client.connect();
    for number in 0..20 {
        let text = format!("number {number}");
        connection.send(&post(&client, &format!("Content-Length: {}\r\n", text.len()), &text));
        connection.answer().ok();
        connection.send((client.head("GET", SELECT) + "\r\n").as_bytes());
        assert_eq!(connection.answer().ok(), text);
        // A refusal before the body does not close the connection.
        connection.send(format!("GET {SELECT} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        connection.answer().problem(401, "missing_key");
    }
}

#[test]
fn connect_and_upgrade() {
    let (_running, client) = deployment();
    let connect = client.head("CONNECT", "127.0.0.1:1342") + "\r\n";
    client.raw(connect).problem(405, "method_not_allowed");
    let upgrade =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = client.raw(client.head("GET", SELECT) + upgrade + "\r\n");
    assert_eq!((answer.ok(), answer.header("upgrade")), ("kept", None));
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    assert_eq!(client.raw(client.head("GET", SELECT) + h2c + "\r\n").ok(), "kept");
    let stripped = "Connection: close, authorization, x-sq-api-key\r\n";
    assert_eq!(client.raw(client.head("GET", SELECT) + stripped + "\r\n").ok(), "kept");
}

#[test]
fn expect_is_answered_after_the_checks() {
    let (running, client) = deployment();
    let expecting = |client: &Client, target: &str, length: usize| -> Connection {
        let mut connection = client.connect();
        let head = client.head("POST", target)
            + &format!("Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n");
        connection.send(head.as_bytes());
        connection
    };
    let mut accepted = expecting(&client, UPDATE, 4);
    assert_eq!(accepted.answer().status, 100);
    accepted.send(b"kept");
    assert_eq!(accepted.answer().ok(), "Updated 4 bytes");

    let nobody = running.client(Some("pmb-v1-nobody"));
    expecting(&nobody, UPDATE, 4).answer().problem(401, "invalid_key");
    expecting(&client, "/api/v2/nowhere", 4).answer().problem(404, "unknown_route");
    expecting(&client, UPDATE, 65 << 20).answer().problem(413, "body_too_large");
    assert_unchanged(&client);
}

#[test]
fn a_head_that_does_not_come_is_given_up() {
    let (_running, client) = with_timeouts("head = \"300ms\"");
    let mut connection = client.connect();
    connection.send(client.head("GET", SELECT).as_bytes());
    connection.answer().problem(408, "request_timeout");
    connection.assert_closed();

    let mut silent = client.connect();
    if let Ok(answer) = silent.try_answer("GET") {
        answer.problem(408, "request_timeout");
    }
    silent.assert_closed();
    assert_unchanged(&client);
}

#[test]
fn dripping_bytes_does_not_buy_time() {
    let (_running, client) = with_timeouts("head = \"300ms\"");
    let mut connection = client.connect();
    let started = Instant::now();
    connection.send(client.head("GET", SELECT).as_bytes());
    while !connection.hears_within(Duration::from_millis(50)) {
        connection.send(b"X");
        assert!(started.elapsed() < wait::PATIENCE, "a byte each 50 ms keeps the connection for ever");
    }
    connection.answer().problem(408, "request_timeout");
    assert_unchanged(&client);
}

#[test]
fn an_idle_connection_is_closed() {
    let (_running, client) = with_timeouts("idle = \"300ms\"");
    let mut connection = client.connect();
    for _ in 0..3 {
        connection.send((client.head("GET", SELECT) + "\r\n").as_bytes());
        assert_eq!(connection.answer().ok(), "kept");
    }
    connection.assert_closed();
}

#[test]
fn a_body_in_the_smallest_chunks_is_one_body() {
    let (_running, client) = deployment();
    let text = "k\u{e4}pt \u{1f506}";
    let mut bytes = post(&client, "Transfer-Encoding: chunked\r\nConnection: close\r\n", "");
    text.bytes().for_each(|byte| bytes.extend(chunk_of(&[byte])));
    bytes.extend(b"0\r\n\r\n");
    client.raw(bytes).ok();
    assert_eq!(client.get(SELECT).ok(), text);
}
