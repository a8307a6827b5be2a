//! What five hundred tenants cost: provisioning, the start, the first answer of a sleeping worker, the
//! memory of all of them awake, and the gateway's memory under a large body. It prints a table and
//! asserts nothing about time: `cargo bench --workspace --bench cold_start`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints its table, and ends when something is wrong"
)]

use std::fmt::Display;
use std::time::{Duration, Instant};

use sq_tests::deployment::Deployment;
use sq_tests::process::kibibytes;
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::target::SELECT;

/// All the slots there are.
const TENANTS: usize = 500;

/// How many sleeping workers are woken one by one.
const COLD_STARTS: usize = 200;

/// The largest body that the default limit lets through.
const BODY_BYTES: usize = 64 << 20;

fn main() {
    // `cargo test --benches` asks every bench for a quick run; this one has none.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    many_tenants();
    a_large_body();
}

fn line(what: &str, value: impl Display) {
    println!("{what:<52} {value:>12}");
}

fn many_tenants() {
    let root = Root::without_registry(&Setup::default());
    let folder = root.path().to_str().unwrap().to_owned();
    let started = Instant::now();
    root.gateway(&["provision", "--slots", "500", "--root", &folder]).success();
    line("provision, 500 tenants", milliseconds(started.elapsed()));
    let keys = keys_of(&root);
    assert_eq!(keys.len(), TENANTS);

    let started = Instant::now();
    let running = Deployment::up(root, &[]);
    line("up, 500 tenants, until ready", milliseconds(started.elapsed()));
    line("workers running with nothing asked", running.workers().len());

    let mut cold: Vec<Duration> =
        keys.iter().take(COLD_STARTS).map(|key| first_answer(&running, key)).collect();
    cold.sort();
    for percent in [50, 90, 99] {
        line(&format!("first answer of a sleeping worker, p{percent}"), percentile(&cold, percent));
    }
    let mut warm: Vec<Duration> =
        keys.iter().take(COLD_STARTS).map(|key| first_answer(&running, key)).collect();
    warm.sort();
    line("the next answer of the same worker, p50", percentile(&warm, 50));

    for key in keys.iter().skip(COLD_STARTS) {
        first_answer(&running, key);
    }
    let workers = running.workers();
    line("workers awake", workers.len());
    let shares = workers.iter().filter_map(|worker| kibibytes(worker.pid, "smaps_rollup", "Pss"));
    line("PSS of all workers", mebibytes(shares.sum()));
    line("PSS of the gateway", mebibytes(kibibytes(running.pid(), "smaps_rollup", "Pss").unwrap_or(0)));
    running.stop();
}

/// The keys of `keys.csv`, in the order of its rows.
fn keys_of(root: &Root) -> Vec<String> {
    let text = root.read("keys.csv");
    text.lines().skip(1).filter_map(|row| row.rsplit(',').next()).map(str::to_owned).collect()
}

fn first_answer(running: &Deployment, key: &str) -> Duration {
    let client = running.client(Some(key));
    let started = Instant::now();
    client.get(SELECT).ok();
    started.elapsed()
}

fn a_large_body() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    client.get(SELECT).ok();
    let peak = || kibibytes(running.pid(), "status", "VmHWM").expect("the gateway's peak");
    let before = peak();
    let letters = "\u{e4}".repeat(BODY_BYTES / 2);
    let started = Instant::now();
    client.post(&SELECT.replace("select", "update"), &letters).ok();
    line("64 MiB posted and on disk", milliseconds(started.elapsed()));
    line("the gateway's peak memory before", mebibytes(before));
    line("the gateway's peak memory grew by", mebibytes(peak() - before));
    running.stop();
}

/// One of some times in order: so many in a hundred are at most as long.
fn percentile(sorted: &[Duration], percent: usize) -> String {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    milliseconds(*sorted.get(index).expect("at least one time"))
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn mebibytes(kibibytes: u64) -> String {
    format!("{}.{} MiB", kibibytes / 1024, kibibytes % 1024 * 10 / 1024)
}
