//! A load by `wrk`, and what it reports.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sq_tests::target::url;
use sq_tests::{process, wait};

/// What a run is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'l> {
    /// Whom it asks.
    pub(crate) address: SocketAddr,
    /// A Lua script that says what.
    pub(crate) script: &'l Path,
    /// On so many connections at once.
    pub(crate) connections: u32,
    /// For so long.
    pub(crate) time: Duration,
}

/// How a run went.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    /// Answers that came.
    pub(crate) requests: u64,
    /// Answers a second.
    pub(crate) rate: f64,
    /// Half of them came within so many microseconds.
    pub(crate) p50_us: f64,
    /// 99 in 100 of them did.
    pub(crate) p99_us: f64,
    /// Answers with a status of 400 or more.
    pub(crate) refused: u64,
    /// Connections that failed, as wrk says it.
    pub(crate) errors: Option<String>,
}

impl Load<'_> {
    /// Runs it, and looks at something in the middle of it.
    pub(crate) fn run_and_look<T>(&self, look: impl FnOnce() -> T) -> (Ran, T) {
        std::thread::scope(|scope| {
            let ran = scope.spawn(|| self.run());
            wait::pass(self.time / 2);
            let seen = look();
            (ran.join().expect("the load"), seen)
        })
    }

    /// Runs it.
    pub(crate) fn run(&self) -> Ran {
        let mut command = Command::new("wrk");
        command.args(["--threads", "1", "--latency", "--timeout", "30s"]);
        command.args(["--connections", &self.connections.to_string()]);
        command.args(["--duration", &format!("{}s", self.time.as_secs())]);
        command.arg("--script").arg(self.script).arg(url(self.address, "/"));
        let printed = process::run_within(&mut command, self.time + Duration::from_secs(60)).success();
        read(&printed).unwrap_or_else(|| panic!("wrk printed something else:\n{printed}"))
    }
}

/// Reads what wrk 4 prints.
fn read(printed: &str) -> Option<Ran> {
    let after =
        |start: &str| printed.lines().find_map(|line| line.trim_start().strip_prefix(start)).map(str::trim);
    let requests =
        printed.lines().find_map(|line| line.trim().split_once(" requests in "))?.0.parse().ok()?;
    Some(Ran {
        requests,
        rate: after("Requests/sec:")?.parse().ok()?,
        p50_us: microseconds(after("50%")?)?,
        p99_us: microseconds(after("99%")?)?,
        refused: after("Non-2xx or 3xx responses:").and_then(|count| count.parse().ok()).unwrap_or(0),
        errors: after("Socket errors:").map(str::to_owned),
    })
}

/// `12.34us`, `1.23ms`, `1.23s`, `1.23m`.
fn microseconds(text: &str) -> Option<f64> {
    [("us", 1.0), ("ms", 1e3), ("m", 60e6), ("s", 1e6)].into_iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    })
}
