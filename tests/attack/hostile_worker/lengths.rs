//! Lengths that lie, and bodies where there is none.

use super::behaviour::Verdict::{BrokenOff, Empty, Refused, Served};
use super::behaviour::{Behaviour, does, sends, sends_and_closes};
use sq_tests::fake_worker::scripted::Step::{Close, Pause, Send, Wait};

pub(super) fn behaviours() -> Vec<Behaviour> {
    let mut all = lies();
    all.extend(malformed());
    all.extend(without_body());
    all.extend(under_head());
    all
}

fn with_length(length: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nok")
}

fn lies() -> Vec<Behaviour> {
    let text = |length: &str| Send(with_length(length).into());
    vec![
        sends("a length too small", with_length("2") + "injected", Served("ok")),
        sends("a length of 0", with_length("0") + "injected", Served("")),
        does("a length too large, and silence", vec![text("3"), Wait], BrokenOff),
        does("a length too large, and a close", vec![text("3"), Close], BrokenOff),
        does("a huge length", vec![text("999999999999999999"), Wait], BrokenOff),
        sends_and_closes("no length", "HTTP/1.1 200 OK\r\n\r\nsome text", Served("some text")),
        sends_and_closes("HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nsome text", Served("some text")),
        sends("HTTP/1.0 with a length", with_length("2").replace("1.1", "1.0"), Served("ok")),
    ]
}

fn malformed() -> Vec<Behaviour> {
    [
        ("a negative length", "-2"),
        ("a length with a plus", "+2"),
        ("a hexadecimal length", "0x2"),
        ("a length with an exponent", "2e0"),
        ("a length with a point", "2.0"),
        ("an empty length", ""),
        ("a length in two words", "2 2"),
        ("a list of two lengths", "2, 3"),
        ("a list of equal lengths", "2, 2"),
        ("two lengths", "2\r\nContent-Length: 3"),
        ("two equal lengths", "2\r\nContent-Length: 2"),
        ("a length of 2^63", "9223372036854775808"),
        ("a length beyond 2^64", "18446744073709551618"),
        ("a length of many zeros", "00000000000000000000000000000002"),
        ("a length of other digits", "\u{0662}"),
    ]
    .into_iter()
    .map(|(name, length)| sends(name, with_length(length), Refused))
    .collect()
}

fn without_body() -> Vec<Behaviour> {
    let head =
        |status: u16, fields: &str, body: &str| format!("HTTP/1.1 {status} None\r\n{fields}\r\n{body}");
    vec![
        sends("204", head(204, "", ""), Empty(204)),
        sends("204 with a body", head(204, "", "injected"), Empty(204)),
        sends("204 with a length", head(204, "Content-Length: 5\r\n", ""), Refused),
        sends("204 with a length of 0", head(204, "Content-Length: 0\r\n", ""), Refused),
        sends("204 with length and body", head(204, "Content-Length: 8\r\n", "injected"), Refused),
        sends("204 in chunks", head(204, "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), Refused),
        sends("204 with a length to a write", head(204, "Content-Length: 5\r\n", ""), Refused)
            .under_update(4),
        sends("304", head(304, "", ""), Empty(304)),
        sends("304 with a body", head(304, "", "injected"), Empty(304)),
        sends("304 with a length", head(304, "Content-Length: 5\r\n", ""), Refused),
        sends("304 with length and body", head(304, "Content-Length: 8\r\n", "injected"), Refused),
        sends(
            "304 in chunks",
            head(304, "Transfer-Encoding: chunked\r\n", "8\r\ninjected\r\n0\r\n\r\n"),
            Refused,
        ),
        sends("205", head(205, "Content-Length: 0\r\n", ""), Refused),
    ]
}

/// The length of a body that is not there, and bodies that are: what is behind the head is not the next answer.
fn under_head() -> Vec<Behaviour> {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n".to_owned();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected";
    [
        sends("HEAD", head.clone(), Served("")),
        sends("HEAD in chunks", chunked.clone(), Served("")),
        sends("HEAD without a length", "HTTP/1.1 200 OK\r\n\r\n", Served("")),
        sends("HEAD with a body", head.clone() + "injected", Served("")),
        sends("HEAD with chunks", chunked + "8\r\ninjected\r\n0\r\n\r\n", Served("")),
        sends("HEAD with another answer behind", head.clone() + whole, Served("")),
        does(
            "HEAD with a late body",
            vec![Send(head.clone().into()), Pause(50), Send("injected".into())],
            Served(""),
        ),
        does("HEAD with a late answer", vec![Send(head.into()), Pause(50), Send(whole.into())], Served("")),
        sends("HEAD with 304 and a body", "HTTP/1.1 304 None\r\n\r\ninjected", Empty(304)),
        sends("HEAD with a malformed length", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Refused),
    ]
    .map(Behaviour::under_head)
    .into()
}
