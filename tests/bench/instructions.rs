//! How many instructions a request takes on the hot path of the gateway and of the worker, counted by callgrind: a
//! figure that does not hang on how fast or how busy the machine is. It fails when one is more than three in a
//! hundred away from what `tests/bench/instructions.toml` says. `tests/bench/count` starts it, and says how.
//!
//! Each program is run with few requests and with many, some times each; the difference is theirs alone, without the start and
//! the stop. What the kernel does for a request is not counted.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench prints its figures, and ends when something is wrong"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use rustix::process::Signal;
use sq_tests::client::Client;
use sq_tests::root::Root;
use sq_tests::separate::Pool;
use sq_tests::setup::{Setup, key_of};
use sq_tests::{address, binaries, process, wait};

/// The requests that both runs have, after which everything is warm, and those that only the longer one has.
const WARM_UP: usize = 300;
const COUNTED: usize = 1_000;

/// How often each run is repeated.
const REPEATS: usize = 4;

/// How far a figure may be from the committed one, either way: who makes the path shorter commits the new figure.
const TOLERANCE: f64 = 0.03;

/// What the counted program and valgrind say, in the root.
const LOG: &str = "valgrind.log";

/// What is asked: a select of forty bytes.
const SCROLL: &str = "p=bench&c=1.1.1/1.1.1/1.1.1";

fn main() -> ExitCode {
    let root = Arc::new(Root::new(&Setup {
        // Counted, as they are by default, and never reached.
        limits: "per_ip = \"1000000/s\"\nper_tenant = \"1000000/s\"\n".to_owned(),
        ..Setup::default()
    }));
    let figures = [("gateway", gateway(&root)), ("worker", worker(&root))];
    let committed = committed();
    let mut is_good = true;
    for (name, figure) in figures {
        let expected = *committed.get(name).unwrap_or_else(|| panic!("no committed figure of the {name}"));
        let off = figure / expected - 1.0;
        let fits = off.abs() <= TOLERANCE;
        is_good &= fits;
        let verdict = if fits { "" } else { ": MORE THAN 3 % AWAY" };
        println!(
            "{name}: {figure:.0} instructions a request, {:+.1} % of {expected:.0}{verdict}",
            off * 100.0
        );
    }
    if is_good {
        return ExitCode::SUCCESS;
    }
    println!(
        "If that is meant, write the new figure into tests/bench/instructions.toml, and why into the commit."
    );
    ExitCode::FAILURE
}

/// The gateway as it is shipped, but without its access log; pool and worker behind it run as they always do.
fn gateway(root: &Arc<Root>) -> f64 {
    let _pool = Pool::start(root);
    let key = key_of("alice");
    let start = || {
        let mut command = counted(&binaries::gateway(), root);
        command.args(["serve", "--config"]).arg(root.config()).env("RUST_LOG", "info,access=off");
        command
    };
    a_request(root, start, root.listen(), &key)
}

/// A worker alone. Callgrind knows no Landlock, so this one is not locked in.
fn worker(root: &Arc<Root>) -> f64 {
    let data = root.join("alone");
    fs::create_dir_all(&data).expect("a folder for its data");
    let listen = address::at(root.address, 1500);
    let key = key_of("alone");
    let start = || {
        let mut command = counted(&binaries::worker(), root);
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
    a_request(root, start, listen, &key)
}

fn counted(program: &Path, root: &Root) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=callgrind.out"]).arg(program);
    command.current_dir(root.path()).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(root.join(LOG)).expect("a file for its log"));
    command
}

fn a_request(root: &Root, start: impl Fn() -> Command, listen: SocketAddr, key: &str) -> f64 {
    let client = Client::new(listen, Some(key));
    let count = |requests| {
        let mut counted = Counted(start().spawn().expect("valgrind: apt-get install valgrind"));
        counted.wait_for(&client, root);
        ask(&client, requests);
        counted.stop();
        total(&root.read("callgrind.out"))
    };
    // The first one writes the scroll, which the others find.
    count(WARM_UP);
    // The least of some: what a program does by the clock comes on top, and more of it on a slow machine.
    let least = |requests| (0..REPEATS).map(|_| count(requests)).fold(f64::MAX, f64::min);
    let (few, many) = (least(WARM_UP), least(WARM_UP + COUNTED));
    (many - few) / COUNTED as f64
}

/// A program under valgrind. Dropping it ends it.
struct Counted(Child);

impl Counted {
    fn wait_for(&mut self, client: &Client, root: &Root) {
        wait::until("the counted program's first answer", || {
            let ended = self.0.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "it ended before it served:\n{}", root.read(LOG));
            client.try_get("/api/v2/version").is_ok()
        });
        let text = "x".repeat(40);
        assert_eq!(client.get(&format!("/api/v2/update?{SCROLL}&s={text}")).status, 200);
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

/// On one connection, one after the other.
fn ask(client: &Client, requests: usize) {
    let request = client.head("GET", &format!("/api/v2/select?{SCROLL}")) + "\r\n";
    let mut connection = client.connect();
    for _ in 0..requests {
        connection.send(request.as_bytes());
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
