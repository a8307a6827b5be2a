//! Closes, resets and silence at each point of an answer, bodies that drip or never end, and requests that are not read.

use super::behaviour::Verdict::{BrokenOff, Late, Refused, Served};
use super::behaviour::{Behaviour, does};
use sq_tests::fake_worker::SERVED;
use sq_tests::fake_worker::scripted::Step::{Close, Drip, HalfClose, Pause, Reset, Send, Sip, Wait};

/// More than the kernel takes for a worker that does not read.
const LONG_BODY_BYTES: usize = 16 << 20;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";

pub(super) fn behaviours() -> Vec<Behaviour> {
    let mut all = closes();
    all.extend(bodies());
    all.extend(unread_requests());
    all
}

fn closes() -> Vec<Behaviour> {
    let after = |start: &str, step| vec![Send(start.into()), step];
    vec![
        does("a close at once", vec![Close], Refused),
        does("a reset at once", vec![Reset], Refused),
        does("a close at once under a write", vec![Close], Refused).under_update(4),
        does("a close in the status line", after("HTTP/1.1 20", Close), Refused),
        does("a reset in the status line", after("HTTP/1.1 20", Reset), Refused),
        does("a close before the head's last byte", after("HTTP/1.1 200 OK\r\n\r", Close), Refused),
        does("a close after the head", after(HEAD, Close), BrokenOff),
        does("a close in the body", after(&(HEAD.to_owned() + "some"), Close), BrokenOff),
        does("a half-close in the body", vec![Send(HEAD.into()), HalfClose, Wait], BrokenOff),
        does("a half-close at once", vec![HalfClose, Wait], Refused),
        does("a half-close after the answer", vec![Send(SERVED.into()), HalfClose], Served("ok")),
        does("silence", vec![Wait], Late),
        does("silence under a write", vec![Wait], Late).under_update(4),
        does("a close just in time, each time", vec![Pause(2500), Close], Late),
        does("a 401 just in time, each time", vec![Pause(2500), Send(REFUSED.into())], Late),
        // The worker may not have read a new key yet: it is asked again while there is time for an answer.
        does("a 401 each time", vec![Send(REFUSED.into())], Refused),
    ]
}

const REFUSED: &str =
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: injected\r\nContent-Length: 8\r\n\r\ninjected";

fn bodies() -> Vec<Behaviour> {
    let after = |start: &str, step| vec![Send(start.into()), step];
    vec![
        does("silence after the head", after(HEAD, Wait), BrokenOff),
        does("silence in the body", after(&(HEAD.to_owned() + "some"), Wait), BrokenOff),
        does("a dripping body", after(HEAD, Drip(b'a')), BrokenOff),
        does("a dripping body without a length", after("HTTP/1.1 200 OK\r\n\r\n", Drip(b'a')), BrokenOff),
    ]
}

fn unread_requests() -> Vec<Behaviour> {
    let dripping_head = vec![Send("HTTP/1.1 200 OK\r\nX: ".into()), Drip(b'a')];
    vec![
        does("an answer before the body", vec![Send(SERVED.into()), Wait], Served("ok"))
            .under_update(LONG_BODY_BYTES),
        does("a body that is not taken", vec![Wait], Late).under_update(LONG_BODY_BYTES),
        does("a body that is sipped", vec![Sip], Late).under_update(LONG_BODY_BYTES),
        does("a dripping head before the body", dripping_head, Late).under_update(LONG_BODY_BYTES),
        does("a reset in the middle of a body", vec![Pause(100), Reset], Refused)
            .under_update(LONG_BODY_BYTES),
    ]
}
