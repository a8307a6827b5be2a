//! Connections that are kept: what a worker puts on one must not become the answer to the next request.

use super::behaviour::Verdict::Served;
use super::behaviour::{Behaviour, does, sends};
use sq_tests::fake_worker::SERVED;
use sq_tests::fake_worker::scripted::Step::{Close, HalfClose, Pause, Reset, Send};

const OTHER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected";

/// Long enough for the gateway to have put the connection aside.
const LATER_MS: u64 = 200;

pub(super) fn behaviours() -> Vec<Behaviour> {
    let with = |fields: &str| SERVED.replacen("\r\n", &format!("\r\n{fields}\r\n"), 1);
    let later = |what: &[u8]| vec![Send(SERVED.into()), Pause(LATER_MS), Send(what.into())];
    vec![
        sends("two answers", [SERVED, OTHER].concat(), Served("ok")),
        sends("the head of a second answer", SERVED.to_owned() + "HTTP/1.1 200 injected\r\n", Served("ok")),
        sends("a byte more", SERVED.to_owned() + "\n", Served("ok")),
        does("a second answer on the idle connection", later(OTHER.as_bytes()), Served("ok")),
        does("half an answer on the idle connection", later(b"HTTP/1.1 200 OK\r\nX: inj"), Served("ok")),
        does("an empty line on the idle connection", later(b"\r\n"), Served("ok")),
        does(
            "a close of the idle connection",
            vec![Send(SERVED.into()), Pause(LATER_MS), Close],
            Served("ok"),
        ),
        does(
            "a reset of the idle connection",
            vec![Send(SERVED.into()), Pause(LATER_MS), Reset],
            Served("ok"),
        ),
        does(
            "a half-close of the idle connection",
            vec![Send(SERVED.into()), Pause(LATER_MS), HalfClose],
            Served("ok"),
        ),
        does(
            "keep-alive, and a close",
            vec![Send(with("Connection: keep-alive").into()), Close],
            Served("ok"),
        ),
        does(
            "keep-alive in HTTP/1.0, and a close",
            vec![Send(with("Connection: keep-alive").replacen("1.1", "1.0", 1).into()), Close],
            Served("ok"),
        ),
        sends("a close that does not come", with("Connection: close"), Served("ok")),
        sends("a negative keep-alive", with("Keep-Alive: timeout=-1, max=-1"), Served("ok")),
        sends("a keep-alive without end", with("Keep-Alive: timeout=99999999999999999999"), Served("ok")),
    ]
}
