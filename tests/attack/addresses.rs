//! A client with a million addresses: as many /64s as it likes, or a botnet. Each request comes from another one and
//! guesses a key, so that both stores of addresses, `per_ip` and `failed_keys`, get them all.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sq_tests::answer::Answer;
use sq_tests::client::Connection;
use sq_tests::deployment::Deployment;
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::target::SELECT;
use sq_tests::test_time::is_long;
use sq_tests::{notice, process};

/// Addresses that are tried in a long test, unless the machine is too slow for so many in [`LONGEST`].
const ADDRESSES: u32 = 1_000_000;
const LONGEST: Duration = Duration::from_secs(75);

/// Those of a short test. With fewer the figure would say nothing: a store without a cap would not be much larger.
const FEWEST_ADDRESSES: u32 = 250_000;

const THREADS: usize = 4;

/// What both stores have places for, each, and the places that newcomers share then (`gateway/src/limits/`).
const OWN_PLACES: u32 = 100_000;
const SHARED_PLACES: u32 = 1024;

/// Wrong keys that an address may send. It gets no new one while the test runs.
const WRONG_KEYS: u32 = 2;
const LIMITS: &str = "per_ip = \"1000/day\"\nfailed_keys = \"2/day\"";

/// Both stores take 13 MiB at most when they are full. Without a cap they take 25 MiB for 250,000 addresses, and 100
/// for a million.
const MOST_GROWTH_KIB: u64 = 18 << 10;

fn deployment() -> Deployment {
    let setup = Setup { gateway: "threads = 2".to_owned(), limits: LIMITS.to_owned(), ..Setup::default() };
    let root = Root::new(&setup);
    let folder = root.path().to_str().unwrap().to_owned();
    let mut command = root.gateway_command(&["up", "--root", &folder]);
    command.env("RUST_LOG", "info,access=off");
    Deployment::spawn(root, &mut command)
}

/// The address of a number: IPv4 and the /64s of IPv6 in turn, none of them twice.
fn address(number: u32) -> String {
    match number % 2 {
        0 => std::net::Ipv4Addr::from_bits(0x0b00_0000 + number).to_string(),
        _ => format!("2001:db8:{:x}:{:x}::1", number >> 16, number & 0xffff),
    }
}

/// Asks from each address that `next` gives out; how often the answer was 401, and how often 429.
fn attack(running: &Deployment, next: &AtomicU32, most: u32, deadline: Instant) -> (u32, u32) {
    let client = running.client(Some("guess"));
    let head = client.head("GET", SELECT);
    let mut connection: Option<Connection> = None;
    let (mut refused, mut limited) = (0, 0);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= most || Instant::now() >= deadline {
            return (refused, limited);
        }
        let request = format!("{head}X-Forwarded-For: {}\r\n\r\n", address(number));
        let mut open = connection.take().unwrap_or_else(|| client.connect());
        open.send(request.as_bytes());
        let answer = open.answer();
        match answer.status {
            401 => refused += 1,
            429 => limited += 1,
            _ => panic!("{answer}"),
        }
        if answer.header("connection") != Some("close") {
            connection = Some(open);
        }
    }
}

fn attack_by_all(running: &Deployment, next: &AtomicU32, most: u32, deadline: Instant) -> (u32, u32) {
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| attack(running, next, most, deadline))).collect();
        let counts = threads.into_iter().map(|thread| thread.join().unwrap());
        counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
    })
}

fn remaining(answer: &Answer) -> u32 {
    let field = answer.header("ratelimit").unwrap_or_else(|| panic!("no RateLimit: {answer}"));
    let parts: Vec<&str> = field.split([';', '=', ',']).collect();
    assert_eq!(parts[..2], ["\"ip\"", "r"], "{field}");
    parts[2].parse().expect("a number")
}

#[test]
fn a_million_addresses_find_bounded_memory() {
    let running = deployment();
    let alice = running.client_of("alice");
    let ask = |address: &str| {
        let answer = alice.request("GET", SELECT, &format!("X-Forwarded-For: {address}\r\n"), None);
        answer.ok();
        remaining(&answer)
    };
    assert_eq!(ask("192.0.2.1"), 999);
    let next = AtomicU32::new(0);
    let in_an_hour = Instant::now() + Duration::from_secs(3600);
    // What the first thousands cost beside their places, such as buffers, is none of theirs.
    let first = attack_by_all(&running, &next, 5000, in_an_hour);
    assert_eq!(first, (5000, 0));
    next.store(5000, Ordering::Relaxed);
    let rss_kib = || process::kibibytes(running.pid(), "status", "VmRSS").unwrap();
    let (before_kib, start) = (rss_kib(), Instant::now());
    let most = if is_long() { ADDRESSES } else { FEWEST_ADDRESSES };
    let rest = attack_by_all(&running, &next, most, start + LONGEST);
    let (after_kib, elapsed) = (rss_kib(), start.elapsed());
    let tried = first.0 + rest.0 + rest.1;
    let growth_kib = after_kib.saturating_sub(before_kib);
    notice::say(&format!(
        "{tried} addresses in {elapsed:.0?}: the gateway grew by {growth_kib} KiB, from {before_kib} to {after_kib}; \
         {} wrong keys were looked up",
        first.0 + rest.0
    ));
    assert!(tried >= FEWEST_ADDRESSES, "only {tried} addresses in {elapsed:?}");
    assert!(growth_kib <= MOST_GROWTH_KIB, "{growth_kib} KiB for {tried} addresses");
    // An address without a place is limited too.
    let most_lookups = OWN_PLACES + WRONG_KEYS * SHARED_PLACES;
    assert!(
        first.0 + rest.0 <= most_lookups,
        "{} wrong keys were looked up, of up to {most_lookups}",
        first.0 + rest.0
    );
    // An address that came first still has its own count, and a newcomer is served in a shared place.
    assert_eq!(ask("192.0.2.1"), 998);
    assert!(ask("192.0.2.2") < 1000);
}
