//! Three thousand slow clients at once: 2,000 drip heads, 500 drip bodies, 500 do not read their answers. Others are
//! served as by a gateway without them, and each of the slow ones is cut off by its deadline.
//!
//! A separate test target, because it measures waits and so runs alone. The baseline is another gateway on the same machine
//! at the same time, with its own workers and without an attack: a machine that is slow for a while slows both, so the
//! difference is what the slow clients do to the others on their gateway.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "these are tests; a helper beside a test function is one too"
)]

use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use sq_shared::limits::{ANSWER_WINDOW, BODY_WINDOW, LINGER_TIME};
use sq_tests::client::Client;
use sq_tests::crowd::{Crowd, End, Manner};
use sq_tests::deployment::Deployment;
use sq_tests::notice::say;
use sq_tests::process::kibibytes;
use sq_tests::setup::{Setup, Tenant};
use sq_tests::test_time::test_time;
use sq_tests::wait;

const HEADS: usize = 2000;
const BODIES: usize = 500;
const READERS: usize = 500;

/// The slow clients with a key are of so many tenants each, so that none of these has all its places taken.
const TENANTS: usize = 10;

/// The default of `timeouts.head`.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How far a deadline may be missed by a busy machine. It runs from when the server has the connection, or has an
/// answer to write, and a crowd that comes at once waits for that.
const SLACK: Duration = Duration::from_secs(15);

/// Between two bytes of a slow client, and between two requests of an honest one.
const DRIP: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(4);

/// A wait below this is the machine's, not an attack's: one turn of the scheduler, on two cores that clients, gateways
/// and workers share.
const NOISE: Duration = Duration::from_millis(4);

/// A machine that does other things as well may have a bad minute.
const ATTEMPTS: usize = 3;

/// Far more than the kernel and the gateway keep for a client that does not read.
const PHEXT_BYTES: usize = 4 << 20;

/// How many descriptors may stay behind: connections to workers that are kept for the next request.
const KEPT_DESCRIPTORS: usize = 32;

const SELECT: &str = "/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1";

fn tenant_names() -> Vec<String> {
    let numbered = |kind: &'static str| (0..TENANTS).map(move |number| format!("{kind}{number}"));
    std::iter::once("alice".to_owned()).chain(numbered("body")).chain(numbered("reader")).collect()
}

fn start() -> Deployment {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let tenants = tenant_names().iter().zip(1341..).map(|(name, port)| Tenant::new(name, port)).collect();
    // As many proxy threads as cores, as it is unless it is set; other tests do with one.
    let gateway = "threads = 0".to_owned();
    let running = Deployment::start(&Setup { tenants, gateway, ..Setup::default() });
    for name in tenant_names() {
        let folder = running.join(format!("data/{name}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("large.phext"), "0123456789abcdef".repeat(PHEXT_BYTES / 16)).unwrap();
        let update = SELECT.replace("select", "update");
        running.client_of(&name).post(&update, "honest").ok();
    }
    running
}

/// The crowd, each kind in the ways that it has.
fn crowd(running: &Deployment) -> Crowd {
    let drip = |byte| Some((byte, DRIP));
    let heads = |name, opening: &str| Manner { name, opening: opening.into(), drip: drip(b'x'), reads: true };
    let mut kinds = Vec::new();
    // First those that are cut off last.
    for number in 0..TENANTS {
        let client = running.client_of(&format!("reader{number}"));
        let opening = (client.head("GET", "/api/v2/get?p=large") + "\r\n").into_bytes();
        kinds.push((READERS / TENANTS, Manner { name: "reader", opening, drip: None, reads: false }));
    }
    for number in 0..TENANTS {
        let client = running.client_of(&format!("body{number}"));
        let post = |framing: &str, byte| {
            let opening = client.head("POST", "/api/v2/update?p=slow&c=1.1.1/1.1.1/1.1.1") + framing;
            Manner { name: "body", opening: opening.into_bytes(), drip: drip(byte), reads: true }
        };
        let each = BODIES / TENANTS;
        kinds.push((each - 30, post("Content-Length: 60000000\r\n\r\n", b'x')));
        kinds.push((20, post("Transfer-Encoding: chunked\r\n\r\nffffff\r\n", b'x')));
        // The size of the first chunk, which never comes to an end; and the fields after the last one.
        kinds.push((5, post("Transfer-Encoding: chunked\r\n\r\n", b'0')));
        kinds.push((5, post("Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Slow: ", b'x')));
    }
    kinds.push((HEADS / 2, heads("head", "GET /api/v2/select?p=")));
    kinds.push((HEADS / 2, heads("head", "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")));
    Crowd::start(running.listen, kinds)
}

/// What honest clients waited, in one stretch of time.
#[derive(Debug, Clone, Copy)]
struct Waits {
    count: usize,
    median: Duration,
    p99: Duration,
    longest: Duration,
}

impl Waits {
    fn of(mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        let at = |share: f64| waits[(waits.len() as f64 * share) as usize];
        Self { count: waits.len(), median: at(0.5), p99: at(0.99), longest: at(0.9999) }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, median, p99, longest } = self;
        write!(f, "{count} requests, p50 {median:.2?}, p99 {p99:.2?}, longest {longest:.2?}")
    }
}

/// An honest client: whose, and whether it keeps its connection.
type Honest = (&'static str, bool);

const HONEST: [Honest; 4] = [("alice", true), ("alice", false), ("body0", true), ("reader0", true)];

/// What the same honest client waited for the gateway under attack and for the other one, in turn.
#[derive(Debug, Clone, Copy)]
struct Compared {
    attacked: Waits,
    quiet: Waits,
}

impl Compared {
    fn is_served_as_without(&self) -> bool {
        self.attacked.p99 <= (self.quiet.p99 * 2).max(NOISE)
    }
}

/// Lets each honest client ask both gateways again and again while something else goes on.
fn watch(attacked: &Deployment, quiet: &Deployment, meanwhile: impl FnOnce()) -> [Compared; 4] {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = HONEST.map(|(tenant, keeps)| {
            let (clients, is_over) = ([attacked, quiet].map(|running| running.client_of(tenant)), &is_over);
            scope.spawn(move || ask_on(&clients, keeps, is_over))
        });
        meanwhile();
        is_over.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().unwrap())
    })
}

fn ask_on(clients: &[Client; 2], keeps: bool, is_over: &AtomicBool) -> Compared {
    let mut kept = clients.each_ref().map(Client::connect);
    let mut waits = [Vec::new(), Vec::new()];
    while !is_over.load(Ordering::Relaxed) {
        for ((client, kept), waits) in clients.iter().zip(&mut kept).zip(&mut waits) {
            let began = Instant::now();
            let answer = if keeps {
                kept.send((client.head("GET", SELECT) + "\r\n").as_bytes());
                kept.answer()
            } else {
                client.get(SELECT)
            };
            waits.push(began.elapsed());
            assert_eq!(answer.ok(), "honest");
            wait::pass(PAUSE);
        }
    }
    let [attacked, quiet] = waits.map(Waits::of);
    Compared { attacked, quiet }
}

fn descriptors(running: &Deployment) -> usize {
    fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap().count()
}

fn resident_mib(running: &Deployment) -> u64 {
    kibibytes(running.pid(), "status", "VmRSS").expect("its memory") / 1024
}

/// Each kind was cut off, all of it, and each one in time. Who reads was told why.
fn assert_cut_off(ends: &[End]) {
    let kinds = [
        ("head", HEADS, HEAD_TIME, HEAD_TIME),
        ("body", BODIES, BODY_WINDOW, BODY_WINDOW + LINGER_TIME),
        ("reader", READERS, ANSWER_WINDOW, ANSWER_WINDOW),
    ];
    for (name, count, earliest, latest) in kinds {
        let of_kind: Vec<&End> = ends.iter().filter(|end| end.name == name).collect();
        let mut after: Vec<Duration> = of_kind.iter().map(|end| end.after).collect();
        after.sort_unstable();
        assert!(after.len() >= count, "only {} of {count} {name}s were cut off", after.len());
        let (first, last) = (after[0], after[after.len() - 1]);
        say(&format!(
            "  {:>4} connections of the kind {name} cut off, after {first:.1?} to {last:.1?}",
            after.len()
        ));
        assert!(first >= earliest - DRIP, "a {name} was cut off after {first:?}");
        assert!(last <= latest + SLACK, "a {name} was cut off only after {last:?}");
        let told = of_kind.iter().filter(|end| end.read.starts_with(b"HTTP/1.1 408 ")).count();
        assert!(name == "reader" || told == of_kind.len(), "{told} of {} {name}s got a 408", of_kind.len());
    }
}

/// One attack, until all its clients have left; returns the waits of the honest clients meanwhile.
fn attack(running: &Deployment, quiet: &Deployment) -> [Compared; 4] {
    let (descriptors_before, memory_before) = (descriptors(running), resident_mib(running));
    let slow = crowd(running);
    wait::until("the whole crowd", || slow.connected() >= HEADS + BODIES + READERS);
    // So long that each head is cut off once.
    let time = test_time().max(HEAD_TIME);
    let mut memory = 0;
    let compared = watch(running, quiet, || {
        wait::pass(time / 2);
        memory = resident_mib(running);
        let most = descriptors(running);
        say(&format!(
            "  {} slow clients; the gateway has {most} descriptors ({descriptors_before} before) and {memory} MiB \
             ({memory_before} before)",
            slow.connected()
        ));
        wait::pass(time / 2);
    });
    slow.leave();
    let gone = wait::within(ANSWER_WINDOW + SLACK, || (slow.connected() == 0).then_some(()));
    let left = slow.connected();
    let ends = slow.end();
    assert_cut_off(&ends);
    assert!(gone.is_some(), "{left} slow clients are still connected");
    assert!(memory < memory_before + READERS as u64, "more than a MiB for each answer: {memory} MiB");
    wait::until("the descriptors given back", || {
        descriptors(running) <= descriptors_before + KEPT_DESCRIPTORS
    });
    compared
}

#[test]
fn slow_clients_do_not_slow_others_down_and_are_cut_off() {
    let (running, quiet) = (start(), start());
    for attempt in 1..=ATTEMPTS {
        say(&format!(
            "slow clients, attempt {attempt}: {HEADS} heads, {BODIES} bodies, {READERS} that do not read"
        ));
        let compared = attack(&running, &quiet);
        for ((tenant, keeps), Compared { attacked, quiet }) in HONEST.iter().zip(&compared) {
            let connection = if *keeps { "one connection" } else { "a connection each" };
            say(&format!("  {tenant}, {connection}: attacked {attacked}; beside it {quiet}"));
        }
        if compared.iter().all(Compared::is_served_as_without) {
            return;
        }
    }
    panic!("honest clients waited more than twice as long, {ATTEMPTS} times");
}
