//! Heads that are split, malformed, endless or slow.

use super::behaviour::Verdict::{Late, Refused, Served};
use super::behaviour::{Behaviour, does, sends, sends_and_closes};
use sq_tests::fake_worker::SERVED;
use sq_tests::fake_worker::scripted::Step::{Bytewise, Close, Drip, Flood, Send, Wait};

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsome \r\n04;a=b\r\ntext\r\n0\r\n\r\n";

pub(super) fn behaviours() -> Vec<Behaviour> {
    let mut all = split();
    all.extend(not_http());
    all.extend(status_lines());
    all.extend(malformed_fields());
    all.extend(without_end());
    all
}

fn split() -> Vec<Behaviour> {
    let lines = SERVED.split_inclusive("\r\n").map(|line| Send(line.into())).collect();
    vec![
        does("a head in single bytes", vec![Bytewise(SERVED.into())], Served("ok")),
        does("chunks in single bytes", vec![Bytewise(CHUNKED.into())], Served("some text")),
        does("a head in lines", lines, Served("ok")),
    ]
}

fn not_http() -> Vec<Behaviour> {
    vec![
        sends_and_closes("HTTP/0.9", "<p>injected</p>", Refused),
        sends_and_closes(
            "an HTTP/2 preface",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            Refused,
        ),
        sends("a status line of HTTP/2", "HTTP/2 200\r\ncontent-length: 2\r\n\r\nok", Refused),
        sends("a status line of HTTP/1.2", SERVED.replacen("1.1", "1.2", 1), Refused),
        sends("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x28injected".to_vec(), Refused),
        sends("a request", "GET /injected HTTP/1.1\r\nHost: a\r\n\r\n", Refused),
        sends("noise", vec![0xff; 64], Refused),
        sends("NULs", vec![0; 64], Refused),
    ]
}

fn status_lines() -> Vec<Behaviour> {
    let with = |name, line: &str, verdict| sends(name, SERVED.replacen("HTTP/1.1 200 OK", line, 1), verdict);
    vec![
        with("status 000", "HTTP/1.1 000 injected", Refused),
        with("status 099", "HTTP/1.1 099 injected", Refused),
        with("status 999", "HTTP/1.1 999 injected", Refused),
        with("status 0200", "HTTP/1.1 0200 injected", Refused),
        with("status 20", "HTTP/1.1 20 injected", Refused),
        with("status -200", "HTTP/1.1 -200 injected", Refused),
        with("no status", "HTTP/1.1 OK", Refused),
        with("no version", "200 OK", Refused),
        with("no reason", "HTTP/1.1 200", Served("ok")),
        with("a reason of its own", "HTTP/1.1 200 injected", Served("ok")),
        with("control bytes in the reason", "HTTP/1.1 200 \x01\x7f injected", Refused),
        with("NUL in the reason", "HTTP/1.1 200 \0injected", Refused),
        with("a CR in the reason", "HTTP/1.1 200 OK\rSet-Cookie: injected", Refused),
        with("status 206", "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9", Refused),
        with("status 226", "HTTP/1.1 226 IM Used", Refused),
        with("status 301", "HTTP/1.1 301 Moved\r\nLocation: http://injected/", Refused),
        with("status 307", "HTTP/1.1 307 Temporary Redirect\r\nLocation: //injected", Refused),
        with("status 407", "HTTP/1.1 407 Proxy\r\nProxy-Authenticate: Basic realm=injected", Refused),
        with("status 418", "HTTP/1.1 418 I'm a teapot", Refused),
        with("status 500", "HTTP/1.1 500 Internal Server Error", Refused),
        with("status 511", "HTTP/1.1 511 Network Authentication Required", Refused),
    ]
}

fn malformed_fields() -> Vec<Behaviour> {
    let with = |name, field: &str, verdict| {
        sends(name, SERVED.replacen("\r\n", &format!("\r\n{field}\r\n"), 1), verdict)
    };
    vec![
        with("a space in a name", "X injected: 1", Refused),
        with("a name of eight bits", "X-\u{e4}: injected", Refused),
        with("no name", ": injected", Refused),
        with("no colon", "injected", Refused),
        with("NUL in a value", "ETag: \"a\0injected\"", Refused),
        with("a CR in a value", "ETag: \"a\rSet-Cookie: injected\"", Refused),
        with("a folded value", "Content-Type: text/plain;\r\n injected=1", Served("ok")),
        with("a folded tag", "ETag: \"a\r\n injected\"", Served("ok")),
        with("a value of eight bits", "ETag: injected \u{e4}", Served("ok")),
        with("line ends without CR", "ETag: \"a\"\nSet-Cookie: injected", Served("ok")),
    ]
}

fn without_end() -> Vec<Behaviour> {
    let after = |start: &str, step| vec![Send(start.into()), step];
    let fields =
        |count: usize| SERVED.replacen("\r\n", &("\r\n".to_owned() + &"X: injected\r\n".repeat(count)), 1);
    vec![
        sends("a hundred fields", fields(100), Served("ok")),
        sends("300 fields", fields(300), Refused),
        does("fields without end", after("HTTP/1.1 200 OK\r\n", Flood(b"X: injected\r\n".into())), Refused),
        does("a value without end", after("HTTP/1.1 200 OK\r\nX: ", Flood(b"injected".into())), Refused),
        does("a name without end", after("HTTP/1.1 200 OK\r\n", Flood(b"injected".into())), Refused),
        does("a reason without end", after("HTTP/1.1 200 ", Flood(b"injected".into())), Refused),
        does("folds without end", after("HTTP/1.1 200 OK\r\nX: a", Flood(b"\r\n b".into())), Refused),
        does("empty lines without end", vec![Flood(b"\r\n".into())], Refused),
        does("a dripping head", after("HTTP/1.1 200 OK\r\nX: ", Drip(b'a')), Late),
        does("dripping empty lines", vec![Drip(b'\n')], Late),
        does("a dripping reason", after("HTTP/1.1 200 ", Drip(b'a')), Late),
        does("half a head", after("HTTP/1.1 200 OK\r\nContent-Le", Wait), Late),
        does("half a head, and a close", after("HTTP/1.1 200 OK\r\nContent-Le", Close), Refused),
        does("a dripping head to a write", after("HTTP/1.1 200 OK\r\nX: ", Drip(b'a')), Late).under_update(4),
        does("a value without end to a write", after("HTTP/1.1 200 OK\r\nX: ", Flood(b"a".into())), Refused)
            .under_update(4),
    ]
}
