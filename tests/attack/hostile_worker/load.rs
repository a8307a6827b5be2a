//! What a hostile worker makes the gateway hold when a tenant has as many requests in flight as it may.

use std::time::Duration;
use std::{fs, thread};

use sq_tests::fake_worker::scripted::Step;
use sq_tests::notice::say;
use sq_tests::process;

use super::behaviour::{Behaviour, Request, Verdict, does};
use super::client::{Received, ask};
use super::{ANSWER, System, while_a_neighbour_asks};

/// `limits.in_flight` as it is by default.
const IN_FLIGHT: usize = 64;

/// When each of them must have ended, though so many floods at once keep all processors busy. The worker tries to hold a request
/// for two minutes.
const CROWD_BOUND: Duration = Duration::from_secs(90);

/// By how much the gateway may grow for them, with all that came before: of each a head and as much again in the buffer that
/// grew for it, a piece of its body, the state of the request, and what the allocator keeps.
const MOST_KIB: u64 = 20 << 10;

fn after(start: &str, flood: &str) -> Vec<Step> {
    vec![Step::Send(start.into()), Step::Flood(flood.into())]
}

fn hungry() -> Vec<Behaviour> {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let fields = (0..4).map(|n| format!("X-{n}: {}\r\n", "x".repeat(250_000))).collect::<String>();
    let a_megabyte = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
    vec![
        does("heads of a megabyte", vec![Step::Send(a_megabyte.into())], Verdict::Refused),
        does("heads without end", after("HTTP/1.1 200 OK\r\nX: ", "x"), Verdict::Refused),
        does("fields without end", after("HTTP/1.1 200 OK\r\n", "X: x\r\n"), Verdict::Refused),
        does("1xx without end", after("", "HTTP/1.1 100 Continue\r\n\r\n"), Verdict::Refused),
        does("dripping heads", vec![Step::Drip(b'\n')], Verdict::Late),
        does("chunk extensions without end", after(&(chunked.to_owned() + "9;"), "x"), Verdict::BrokenOff),
        does("trailers without end", after(&(chunked.to_owned() + "0\r\n"), "X: x\r\n"), Verdict::BrokenOff),
        does("pieces of chunks", after(chunked, "1;abcdefgh\r\nx\r\n"), Verdict::BrokenOff),
        does("bodies without end", after("HTTP/1.1 200 OK\r\n\r\n", "x"), Verdict::BrokenOff),
    ]
}

/// Runs the behaviour for all requests at once; gives what a client must not see.
fn mistakes(system: &System, behaviour: &Behaviour) -> Vec<String> {
    system.workers[0].does(behaviour.steps.clone());
    thread::scope(|scope| {
        let asking: Vec<_> = (0..IN_FLIGHT)
            .map(|_| scope.spawn(|| ask(&system.client(0), Request::Select, CROWD_BOUND)))
            .collect();
        let mistake = |received: Received| match received.took {
            took if took >= CROWD_BOUND => Some(format!("the request took {took:?}")),
            _ if received.is_endless() => None,
            _ => received.mistake(Request::Select, behaviour.verdict),
        };
        asking.into_iter().filter_map(|client| mistake(client.join().unwrap())).collect()
    })
}

#[test]
fn as_many_as_may_be_at_once_take_bounded_memory() {
    let system = System::start(2, ANSWER);
    let memory = |name: &str| process::kibibytes(system.gateway.pid(), "status", name).unwrap();
    let before = memory("VmRSS");
    let (mut growths, mut wrong) = (Vec::new(), Vec::new());
    while_a_neighbour_asks(&system, 1, || {
        for behaviour in hungry() {
            // 5: the peak is counted from now (proc(5)).
            fs::write(format!("/proc/{}/clear_refs", system.gateway.pid()), "5").unwrap();
            wrong.extend(mistakes(&system, &behaviour).pop().map(|mistake| (behaviour.name, mistake)));
            growths.push((behaviour.name, memory("VmHWM").saturating_sub(before)));
        }
    });
    say(&format!("{IN_FLIGHT} at once, growth of the gateway in KiB: {growths:?}"));
    assert!(wrong.is_empty(), "{wrong:#?}");
    let over: Vec<_> = growths.iter().filter(|(_, kib)| *kib > MOST_KIB).collect();
    assert!(over.is_empty(), "over {MOST_KIB} KiB: {over:?}");
}
