//! Noise on every port that a client can reach: random bytes and changed requests. Nothing panics, nothing answers 5xx,
//! every answer is HTTP, and the next honest request is served.

mod mutation;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sq_tests::address;
use sq_tests::client::Client;
use sq_tests::deployment::{Deployment, Worker};
use sq_tests::nginx::{self, Nginx};
use sq_tests::notice::say;
use sq_tests::process::{descendants, kibibytes, name};
use sq_tests::random::Random;
use sq_tests::root::Root;
use sq_tests::setup::{Setup, key_of};
use sq_tests::test_time::test_time;
use sq_tests::wait;

/// Repeats a run: the number that it printed.
const SEED_VARIABLE: &str = "SQ_NOISE_SEED";

/// How long an answer is waited for when more could be sent; many of the messages are not complete, and the
/// server is right to wait.
const PATIENCE: Duration = Duration::from_millis(30);

/// After so many messages comes an honest request.
const HONEST_EVERY: usize = 25;

/// How many messages each port gets at least, however slow the machine is: per second, in a short test.
const AT_LEAST_PER_S: u64 = 8;

/// What a process may have more in memory afterwards, in KiB: what allocators keep, and the worker its phexts.
const GROWTH_KIB: u64 = 96 << 10;

/// What is asked of a port between the noise.
#[derive(Clone)]
struct Port {
    name: &'static str,
    client: Client,
    question: &'static str,
    answer: Option<&'static str>,
}

/// How a port's messages were answered.
#[derive(Default, Debug)]
struct Tally {
    messages: usize,
    accepted: usize,
    refused: usize,
    /// No answer: the message was not complete, or its end was the client's.
    silent: usize,
}

#[test]
fn noise_on_every_port() {
    let running = deployment();
    let own = "/api/v2/select?p=own&c=1.1.1/1.1.1/1.1.1";
    for tenant in ["alice", "bob"] {
        running.client_of(tenant).post(&own.replace("select", "update"), tenant).ok();
    }
    let nginx =
        nginx::works("noise at nginx").then(|| Nginx::start(running.listen, running.address, running.path()));
    let ports = ports(&running, nginx.as_ref(), own);
    let before = (running.worker_of("alice"), memory(&running));

    let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    let seed =
        std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::from(now_ns));
    say(&format!("noise: {SEED_VARIABLE}={seed} repeats it"));
    let time = test_time();
    let end = Instant::now() + time;
    let least = AT_LEAST_PER_S * time.as_secs();
    thread::scope(|scope| {
        for (index, port) in (0..).zip(&ports) {
            scope.spawn(move || {
                let tally = attack(port, Random::new(seed.wrapping_add(index)), end);
                say(&format!("  {}: {tally:?}", port.name));
                assert!(tally.messages as u64 >= least, "{}: only {tally:?}", port.name);
            });
        }
    });
    assert_unharmed(&running, before);
    // No message had bob's key.
    assert_eq!(running.client_of("bob").get(own).ok(), "bob");
    assert_eq!(running.client_of("bob").get("/api/v2/toc?p=own").ok().lines().count(), 1);
}

/// The access lines of so many requests would fill the folder.
fn deployment() -> Deployment {
    let root = Root::new(&Setup::default());
    let folder = root.path().to_str().expect("a path of UTF-8").to_owned();
    let mut command = root.gateway_command(&["up", "--root", &folder]);
    command.env("RUST_LOG", "info,access=off");
    Deployment::spawn(root, &mut command)
}

fn ports(running: &Deployment, nginx: Option<&Nginx>, own: &'static str) -> Vec<Port> {
    let key = key_of("alice");
    let status = Client::new(address::at(running.address, 1339), None);
    let mut ports = vec![
        Port { name: "gateway", client: running.client_of("alice"), question: own, answer: Some("alice") },
        Port { name: "worker", client: running.slot(1341, Some(&key)), question: own, answer: Some("alice") },
        Port { name: "pool's status", client: status, question: "/status", answer: None },
    ];
    let behind = nginx.map(|nginx| nginx.client(Some(&key)));
    ports.extend(behind.map(|client| Port { name: "nginx", client, question: own, answer: Some("alice") }));
    ports
}

/// Sends messages until the time is over.
fn attack(port: &Port, mut random: Random, end: Instant) -> Tally {
    let valid = valid_messages(port.client.address);
    let mut tally = Tally::default();
    while Instant::now() < end {
        let message = mutation::message(&mut random, &valid);
        let finish = random.below(4) > 0;
        try_one(port, &message, finish, &mut tally);
        if tally.messages.is_multiple_of(HONEST_EVERY) {
            let answer = port.client.get(port.question);
            assert_eq!(answer.status, 200, "{}: {answer}", port.name);
            assert!(port.answer.is_none_or(|due| answer.text() == due), "{}: {answer}", port.name);
        }
    }
    tally
}

/// What alice may ask. On scrolls apart from the one that is asked for between; and no HEAD, whose answers a
/// reader that does not know the question cannot cut.
fn valid_messages(host: SocketAddr) -> Vec<Vec<u8>> {
    let fields = format!("Host: {host}\r\nAuthorization: Bearer {}\r\n", key_of("alice"));
    let at = "p=noise&c=1.1.1/1.1.1/1.1.1";
    [
        format!("GET /api/v2/select?{at} HTTP/1.1\r\n{fields}\r\n"),
        format!("GET /api/v2/update?{at}&s=text%20%C3%A9 HTTP/1.1\r\n{fields}User-Agent: noise\r\n\r\n"),
        format!("POST /api/v2/update?{at} HTTP/1.1\r\n{fields}Content-Length: 11\r\n\r\nhello w\u{f6}rl"),
        format!("POST /api/v2/insert?{at} HTTP/1.1\r\n{fields}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n4;a=b\r\n w\u{f6}\r\n0\r\nX-A: b\r\n\r\n"),
        format!("POST /api/v2/update HTTP/1.1\r\n{fields}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 33\r\n\r\np=noise&c=1.1.1/1.1.1/1.1.2&s=abc"),
        format!("POST /api/v2/query?p=noise HTTP/1.1\r\n{fields}Content-Length: 17\r\n\r\n1.1.1/1.1.1/1.1.1"),
        format!("POST /api/v2/delta?p=noise HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n"),
        format!("GET /api/v2/query?p=noise&from=1.1.1/1.1.1/1.1.1&to=9.9.9/9.9.9/9.9.9&limit=3 HTTP/1.1\r\n{fields}\r\n"),
        format!("GET /api/v2/delete?{at} HTTP/1.0\r\n{fields}If-Match: \"0123456789abcdef0123456789abcdef\"\r\n\r\n"),
        format!("POST /api/v2/insert?{at} HTTP/1.1\r\n{fields}Idempotency-Key: noise\r\nContent-Length: 1\r\n\r\nx"),
        format!("POST /api/v2/where?algo=xor&limit=5 HTTP/1.1\r\n{fields}Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"),
        format!("GET http://{host}/api/v2/toc?p=noise HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"),
        format!("OPTIONS /api/v2/select HTTP/1.1\r\n{fields}Origin: https://a.example\r\n\r\n"),
        format!("GET /health HTTP/1.1\r\n{fields}X-Forwarded-For: 203.0.113.1, ::1\r\n\r\n"),
        format!("GET /status HTTP/1.1\r\n{fields}\r\n"),
    ]
    .map(String::into_bytes)
    .into()
}

/// Sends one message, and reads all that comes back.
fn try_one(port: &Port, message: &[u8], finish: bool, tally: &mut Tally) {
    // Ports of our own run out for a moment when connections end too quickly.
    let connection = wait::until_some("a connection", || port.client.try_connect().ok());
    let mut connection = connection.with_patience(if finish { wait::PATIENCE } else { PATIENCE });
    connection.send(message);
    if finish {
        connection.finish_sending();
    }
    tally.messages += 1;
    let mut answers = 0;
    let error = loop {
        match connection.try_answer("GET") {
            Ok(answer) => {
                let shown = String::from_utf8_lossy(message);
                assert!(answer.status < 500, "{}: {answer}\nto {shown:?}", port.name);
                if answer.status >= 400 {
                    tally.refused += 1
                } else {
                    tally.accepted += 1
                }
                answers += 1;
            }
            Err(error) => break error,
        }
    };
    let shown = String::from_utf8_lossy(message);
    assert_ne!(error.kind(), ErrorKind::InvalidData, "{}: not HTTP: {error}\nto {shown:?}", port.name);
    tally.silent += usize::from(answers == 0);
}

/// What each process of the system has in memory, in KiB.
fn memory(running: &Deployment) -> Vec<(u32, String, u64)> {
    let pids =
        [running.pid()].into_iter().chain(descendants(running.pid()).into_iter().map(|process| process.pid));
    pids.filter_map(|pid| Some((pid, name(pid)?, kibibytes(pid, "status", "VmRSS")?))).collect()
}

/// Checks that alice's worker is the same as before, and that no process has grown without bound.
fn assert_unharmed(running: &Deployment, (worker, memory_before): (Option<Worker>, Vec<(u32, String, u64)>)) {
    assert!(worker.is_some() && running.worker_of("alice") == worker, "alice's worker is another one");
    let status = running.pool_status();
    let crashes = status["running"].as_array().unwrap().iter().map(|worker| worker["crashes"].as_u64());
    assert!(crashes.clone().all(|count| count == Some(0)), "{status}");
    let log = running.log();
    assert!(!log.contains("panicked") && !log.contains("\"status\":500"), "{log}");
    let after = memory(running);
    for (pid, name, before_kib) in memory_before {
        let after_kib = after.iter().find(|(other, ..)| *other == pid).map(|(.., kib)| *kib);
        let after_kib = after_kib.unwrap_or_else(|| panic!("{name} is gone"));
        say(&format!("  {name}: {before_kib} KiB before, {after_kib} KiB after"));
        assert!(after_kib < before_kib + GROWTH_KIB, "{name} grew");
    }
}
