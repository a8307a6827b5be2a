//! What of an answer is bounded by a number: at the number, and one past it.

use std::io::Write;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sq_shared::limits::ANSWER_HEAD_BYTES;
use sq_tests::fake_worker::scripted::Step;
use sq_tests::fake_worker::{FakeWorker, SERVED};
use sq_tests::process;
use sq_tests::root::Root;
use sq_tests::separate::Gateway;
use sq_tests::setup::Setup;
use sq_tests::wait::{self, PATIENCE};

use super::behaviour::{Behaviour, Request, Verdict, does, sends};
use super::client::ask;
use super::{ANSWER, BOUND, System};

/// A good answer whose head has so many bytes.
fn with_head_of(bytes: usize) -> String {
    let head_bytes = SERVED.len() - "ok".len();
    let field = format!("\r\nX: {}\r\n", "x".repeat(bytes - head_bytes - "X: \r\n".len()));
    SERVED.replacen("\r\n", &field, 1)
}

fn assert_all_hold(behaviours: &[Behaviour]) {
    let system = System::start(1, ANSWER);
    for behaviour in behaviours {
        let mistake = system.try_out(0, behaviour);
        assert!(mistake.is_none(), "{}: {mistake:?}", behaviour.name);
    }
}

#[test]
fn a_head_may_have_16_kib() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    let rest = ANSWER_HEAD_BYTES - interim.len();
    let late = with_head_of(ANSWER_HEAD_BYTES + 1).split_off(ANSWER_HEAD_BYTES);
    let early = with_head_of(ANSWER_HEAD_BYTES + 1)[..ANSWER_HEAD_BYTES].to_owned();
    let in_two = vec![Step::Send(early.into()), Step::Pause(100), Step::Send(late.into())];
    assert_all_hold(&[
        sends("a head at the limit", with_head_of(ANSWER_HEAD_BYTES), Verdict::Served("ok")),
        sends("a head one past it", with_head_of(ANSWER_HEAD_BYTES + 1), Verdict::Refused),
        sends("two heads at the limit", interim.to_owned() + &with_head_of(rest), Verdict::Served("ok")),
        sends("two heads one past it", interim.to_owned() + &with_head_of(rest + 1), Verdict::Refused),
        does("a head one past it, in two", in_two, Verdict::Refused),
        sends("a head one past it to a write", with_head_of(ANSWER_HEAD_BYTES + 1), Verdict::Refused)
            .under_update(4),
    ]);
}

/// One that dies just before its time, again and again, does not begin it again.
#[test]
fn all_attempts_share_one_deadline() {
    let answer = Duration::from_secs(4);
    let system = System::start(1, answer);
    let each_time = |step: Step| vec![Step::Pause(3500), step];
    let refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec();
    for (step, request) in [
        (Step::Close, Request::Select),
        (Step::Close, Request::Update(4)),
        (Step::Send(refused), Request::Select),
    ] {
        system.workers[0].does(each_time(step));
        let received = ask(&system.client(0), request, PATIENCE);
        assert_eq!(received.mistake(request, Verdict::Late), None);
        assert!(received.took < answer * 2, "{:?}", received.took);
    }
}

/// What is not bounded: a text, as long as it comes and its client takes it. It ends with its client.
#[test]
fn an_answer_without_end_ends_with_its_client() {
    let system = System::start(1, ANSWER);
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (head, piece) in [(head, "5\r\nabcde\r\n"), ("HTTP/1.1 200 OK\r\n\r\n", "abcde")] {
        let done = system.workers[0].does(vec![Step::Send(head.into()), Step::Flood(piece.into())]);
        assert!(ask(&system.client(0), Request::Select, PATIENCE).is_endless());
        done.recv_timeout(PATIENCE).expect("the gateway lets go of the worker");
    }
}

/// Each answer makes the gateway keep the connection, and each request fills the socket further, until a head has no room.
#[test]
fn a_worker_that_answers_without_reading_is_given_up() {
    let timeouts = format!("answer = \"{}ms\"\n", ANSWER.as_millis());
    let root = Arc::new(Root::new(&Setup { timeouts, ..Setup::default() }));
    let gateway = Gateway::serve(&root);
    let worker = FakeWorker::listen(root.address, 1341);
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let connections = Arc::clone(&accepted);
    thread::spawn(move || {
        loop {
            let new = worker.accept();
            connections.lock().unwrap().push(new);
        }
    });
    let long = format!("/api/v2/select?p=text&c=1.1.1/1.1.1/1.1.1&x={}", "x".repeat(60_000));
    let slot = SocketAddrV4::new(root.address, 1341);
    let queued = || process::unread_bytes(slot) + process::unsent_bytes(slot);
    let client = gateway.client_of("alice");
    let refused = (0..1000).find_map(|_| {
        let mut connection = client.connect();
        let (began, before) = (Instant::now(), queued());
        connection.send((client.head("GET", &long) + "\r\n").as_bytes());
        // As long as there is room, the worker answers when the request is in the socket.
        wait::until("the request, or its end", || {
            queued() > before || connection.hears_within(Duration::from_millis(1))
        });
        for worker in accepted.lock().unwrap().iter_mut() {
            // Of an earlier one the gateway may have let go.
            let _ = worker.write_all(SERVED.as_bytes());
        }
        let answer = connection.answer();
        assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
        (answer.status != 200).then_some(answer)
    });
    refused.expect("the socket takes so much at most").problem(504, "worker_timeout");
    assert_eq!(accepted.lock().unwrap().len(), 1, "it was the connection that had no room");
}
