//! How many instructions a request takes on the hot path of the gateway and of the worker, counted by callgrind: a
//! figure that does not hang on how fast or how busy the machine is. It fails when one is more than three in a
//! hundred away from what `tests/bench/instructions.toml` says. `tests/bench/count` starts it, and says how.
//!
//! Each program is run with few requests and with many, some times each; the difference is theirs alone, without the
//! start and the stop. What the kernel does for a request is not counted. The gateway is counted a second time with 500
//! tenants that are asked in turn: it must take as many instructions as for one, but for a few in a hundred.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench prints its figures, and ends when something is wrong"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use sq_tests::client::Client;
use sq_tests::root::Root;
use sq_tests::separate::Pool;
use sq_tests::setup::{self, Setup, key_of};
use sq_tests::{address, binaries, process, wait};

/// The requests that both runs have, after which everything is warm and every tenant's connection made, and those that
/// only the longer one has: so many that a start or a stop that takes a million instructions more or less does not tell.
const WARM_UP: usize = 600;
const COUNTED: usize = 4_000;

/// All the slots there are.
const TENANTS: u16 = 500;

/// How much more a request may take among 500 tenants.
const GROWTH: f64 = 0.05;

/// How often each run is repeated.
const REPEATS: usize = 4;

/// How often a figure that does not fit is counted anew.
const ATTEMPTS: usize = 3;

/// How far a figure may be from the committed one, either way: who makes the path shorter commits the new figure.
const TOLERANCE: f64 = 0.03;

/// What the counted program and valgrind say, in the root.
const LOG: &str = "valgrind.log";

/// What is asked: a select of forty bytes.
const SCROLL: &str = "p=bench&c=1.1.1/1.1.1/1.1.1";

fn main() -> ExitCode {
    let committed = committed();
    let (_, worker_fits) = compare(&committed, "worker", worker);
    let (alone, gateway_fits) = compare(&committed, "gateway", || gateway(1));
    let is_good = worker_fits && gateway_fits;
    if !is_good {
        println!(
            "If that is meant, write the new figure into tests/bench/instructions.toml, and why into the commit."
        );
    }
    let fits = |figure: f64| figure / alone - 1.0 <= GROWTH;
    let among_many = steady(|| gateway(TENANTS), fits);
    let (growth, grows) = (among_many / alone - 1.0, !fits(among_many));
    let verdict = if grows { ": MORE THAN 5 % MORE" } else { "" };
    println!(
        "gateway, {TENANTS} tenants in turn: {among_many:.0} instructions a request, {:+.1} % of those for one{verdict}",
        growth * 100.0
    );
    if is_good && !grows { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Counts, compares with what is committed, and says so; whether it fits.
fn compare(committed: &BTreeMap<String, f64>, name: &str, count: impl Fn() -> f64) -> (f64, bool) {
    let expected = *committed.get(name).unwrap_or_else(|| panic!("no committed figure of the {name}"));
    let fits = |figure: f64| (figure / expected - 1.0).abs() <= TOLERANCE;
    let figure = steady(count, fits);
    let verdict = if fits(figure) { "" } else { ": MORE THAN 3 % AWAY" };
    let off = (figure / expected - 1.0) * 100.0;
    println!("{name}: {figure:.0} instructions a request, {off:+.1} % of {expected:.0}{verdict}");
    (figure, fits(figure))
}

/// A figure that fits, or the last of some: on a machine that is busy with other things a program is woken more often for
/// the same request.
fn steady(count: impl Fn() -> f64, fits: impl Fn(f64) -> bool) -> f64 {
    let mut figure = count();
    for _ in 1..ATTEMPTS {
        if fits(figure) {
            break;
        }
        figure = count();
    }
    figure
}

/// The gateway as it is shipped, but without its access log; pool and workers behind it run as they always do.
fn gateway(count: u16) -> f64 {
    let tenants = setup::tenants(count);
    let root = Arc::new(Root::new(&Setup {
        tenants: tenants.clone(),
        // Counted, as they are by default, and never reached.
        limits: "per_ip = \"1000000/s\"\nper_tenant = \"1000000/s\"\n".to_owned(),
        ..Setup::default()
    }));
    let _pool = Pool::start(&root);
    let clients =
        tenants.iter().map(|tenant| Client::new(root.listen(), Some(&key_of(&tenant.name)))).collect();
    let start = || {
        let mut command = counted(&binaries::gateway(), &root);
        command.args(["serve", "--config"]).arg(root.config()).env("RUST_LOG", "info,access=off");
        command
    };
    a_request(&root, start, clients)
}

/// A worker alone. Callgrind knows no Landlock, so this one is not locked in.
fn worker() -> f64 {
    let root = Root::empty();
    let data = root.join("alone");
    fs::create_dir_all(&data).expect("a folder for its data");
    let listen = address::at(root.address, 1500);
    let key = key_of("alone");
    let start = || {
        let mut command = counted(&binaries::worker(), &root);
        command.args([
            "serve",
            "--sandbox",
            "off",
            "--listen",
            &listen.to_string(),
            "--key",
            &key,
            "--data-dir",
        ]);
        command.arg(&data).env("RUST_LOG", "info,access=off");
        command
    };
    a_request(&root, start, vec![Client::new(listen, Some(&key))])
}

fn counted(program: &Path, root: &Root) -> Command {
    // Under valgrind a program cannot set its limit of open files where that is above valgrind's own; and the pool, which
    // runs without, needs more than this.
    let mut command = Command::new("prlimit");
    command
        .args(["--nofile=1024", "valgrind", "--tool=callgrind", "--callgrind-out-file=callgrind.out"])
        .arg(program);
    command.current_dir(root.path()).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(root.join(LOG)).expect("a file for its log"));
    command
}

/// What a request takes when these clients ask in turn.
fn a_request(root: &Root, start: impl Fn() -> Command, clients: Vec<Client>) -> f64 {
    let start = || {
        let mut counted = Counted(start().spawn().expect("valgrind: apt-get install valgrind"));
        counted.wait_for(&clients, root);
        counted
    };
    let text = "x".repeat(40);
    let first = start();
    for client in &clients {
        assert_eq!(client.get(&format!("/api/v2/update?{SCROLL}&s={text}")).status, 200);
    }
    first.stop();
    let count = |requests| {
        let counted = start();
        ask(&clients, requests);
        counted.stop();
        total(&root.read("callgrind.out"))
    };
    // The least of some: what a program does by the clock comes on top, and more of it on a slow machine.
    let least = |requests| (0..REPEATS).map(|_| count(requests)).fold(f64::MAX, f64::min);
    let (few, many) = (least(WARM_UP), least(WARM_UP + COUNTED));
    (many - few) / COUNTED as f64
}

/// A program under valgrind. Dropping it ends it.
struct Counted(Child);

impl Counted {
    fn wait_for(&mut self, clients: &[Client], root: &Root) {
        let client = clients.first().expect("at least one client");
        wait::until("the counted program's first answer", || {
            let ended = self.0.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "it ended before it served:\n{}", root.read(LOG));
            client.try_get("/api/v2/version").is_ok()
        });
    }

    fn stop(mut self) {
        process::signal(self.0.id(), Signal::TERM);
        wait::until("the counted program's end", || self.0.try_wait().expect("a child of ours").is_some());
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        process::kill_and_reap(&mut self.0);
    }
}

/// On one connection, one after the other, each client in turn.
fn ask(clients: &[Client], requests: usize) {
    let head = |client: &Client| client.head("GET", &format!("/api/v2/select?{SCROLL}")) + "\r\n";
    let heads: Vec<String> = clients.iter().map(head).collect();
    let mut connection = clients.first().expect("at least one client").connect();
    for head in heads.iter().cycle().take(requests) {
        connection.send(head.as_bytes());
        let answer = connection.answer();
        assert_eq!((answer.status, answer.body.len()), (200, 40), "{answer}");
    }
}

/// The sum of all instructions, from callgrind's file.
fn total(written: &str) -> f64 {
    let total = written.lines().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).unwrap_or_else(|| panic!("callgrind wrote no totals"))
}

fn committed() -> BTreeMap<String, f64> {
    let file = binaries::workspace().join("tests/bench/instructions.toml");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let figure = |line: &str| {
        let (name, figure) = line.split_once('=')?;
        Some((name.trim().to_owned(), figure.trim().replace('_', "").parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(figure).collect()
}
