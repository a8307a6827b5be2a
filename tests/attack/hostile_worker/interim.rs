//! Interim answers (1xx), which the gateway never asks for.

use sq_shared::limits::INTERIM_ANSWERS;

use super::behaviour::Verdict::{Late, Refused, Served};
use super::behaviour::{Behaviour, does, sends};
use sq_tests::fake_worker::SERVED;
use sq_tests::fake_worker::scripted::Step::{Close, Flood, Pause, Send, Wait};

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </injected>\r\nSet-Cookie: injected\r\n\r\n";
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: injected\r\nConnection: Upgrade\r\n\r\n";

pub(super) fn behaviours() -> Vec<Behaviour> {
    let slowly =
        |count: usize| (0..count).flat_map(|_| [Send(CONTINUE.into()), Pause(1000)]).collect::<Vec<_>>();
    let wide = format!("HTTP/1.1 103 Early Hints\r\nX: {}\r\n\r\n", "injected".repeat(600));
    vec![
        sends("100 first", [CONTINUE, SERVED].concat(), Served("ok")),
        sends("103 with fields first", [HINTS, SERVED].concat(), Served("ok")),
        sends("199 first", ["HTTP/1.1 199 injected\r\n\r\n", SERVED].concat(), Served("ok")),
        sends("as many 1xx as may be", CONTINUE.repeat(INTERIM_ANSWERS) + SERVED, Served("ok")),
        sends("one 1xx more", CONTINUE.repeat(INTERIM_ANSWERS + 1) + SERVED, Refused),
        sends("wide 1xx", wide.repeat(4) + SERVED, Refused),
        does("1xx without end", vec![Flood(CONTINUE.into())], Refused),
        does("1xx now and then", slowly(60), Late),
        does("1xx now and then to a write", slowly(60), Late).under_update(4),
        does("1xx and silence", vec![Send(HINTS.into()), Wait], Late),
        does("1xx and a close", vec![Send(CONTINUE.into()), Close], Refused),
        sends("101", SWITCHING.to_owned() + "injected", Refused),
        sends("101 after 100", [CONTINUE, SWITCHING, SERVED].concat(), Refused),
        sends("101 to a write", SWITCHING, Refused).under_update(4),
        sends(
            "1xx with a length",
            format!("HTTP/1.1 100 A\r\nContent-Length: 8\r\n\r\ninjected{SERVED}"),
            Refused,
        ),
        sends("1xx after the answer", [SERVED, CONTINUE].concat(), Served("ok")),
    ]
}
