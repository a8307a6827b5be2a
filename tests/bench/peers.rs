//! The gateway beside nginx, HAProxy, Caddy and SQ's own router, and the worker beside `sq host`: requests a second,
//! latency, processor time a request and memory, in one run, in turn, on one machine. It prints tables, and asserts
//! nothing about time. `tests/bench/run` starts it, and says how.
//!
//! Every proxy has the same job: the keys of 500 tenants mapped to their workers' ports, a rate that is counted and
//! never reached, connections kept open on both sides, no access log, one thread. The workers behind are the same
//! processes for all of them. Everything else of the gateway is on: its limits, its checks, its metrics, the audit log.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench prints its tables, and ends when something is wrong"
)]

use peers::options::{Options, Part};
use peers::{growth, jobs, lone, memory, report};

mod peers {
    //! The parts of the bench.
    pub(crate) mod fleet;
    pub(crate) mod growth;
    pub(crate) mod jobs;
    pub(crate) mod load;
    pub(crate) mod lone;
    pub(crate) mod measure;
    pub(crate) mod memory;
    pub(crate) mod options;
    pub(crate) mod proxy;
    pub(crate) mod report;
    pub(crate) mod script;
    pub(crate) mod usage;
}

fn main() {
    // `cargo bench` says so; `cargo test --benches` does not, and wants no figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let options = Options::from_command_line();
    report::machine();
    let kinds = report::found(&options);
    for part in &options.parts {
        match part {
            Part::Jobs => jobs::run(&options, &kinds),
            Part::Growth => growth::run(&options, &kinds),
            Part::Memory => memory::run(&options),
            Part::Worker => lone::run(&options),
        }
    }
    report::load_average();
}
