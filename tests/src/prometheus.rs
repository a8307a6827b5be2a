//! The real Prometheus with the shipped configuration and alert rules: only addresses and intervals differ. And
//! promtool, which checks such files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::client::{Client, percent_encoded};
use crate::deployment::Deployment;
use crate::notice::skip;
use crate::process::Outcome;
use crate::{address, binaries, process, wait};

/// The shipped files.
pub const FOLDER: &str = "config/prometheus";

/// A running Prometheus. Dropping it stops it.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    log: PathBuf,
    client: Client,
}

/// One series of a result: its labels without `__name__`, and its value.
pub type Series = (BTreeMap<String, String>, f64);

/// Whether Prometheus and promtool are installed. If not, prints a notice; with `CI=true`, that is a failure.
pub fn works(skipped: &str) -> bool {
    let missing = ["prometheus", "promtool"].into_iter().find(|program| binaries::on_path(program).is_none());
    if let Some(program) = missing {
        skip(&format!("{skipped}: {program} is missing; apt-get install prometheus"));
    }
    missing.is_none()
}

/// Runs `promtool` in the folder of the shipped files.
pub fn promtool(arguments: &[&str]) -> Outcome {
    process::run(Command::new("promtool").current_dir(binaries::workspace().join(FOLDER)).args(arguments))
}

/// Runs `promtool check metrics` on a response of `/metrics`.
pub fn check_metrics(answer: &Path) -> Outcome {
    process::run(Command::new("sh").args(["-c", "exec promtool check metrics <\"$0\""]).arg(answer))
}

impl Prometheus {
    /// Starts it beside a deployment: it scrapes gateway and pool.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(running: &Deployment) -> Self {
        let folder = running.join("prometheus");
        fs::create_dir_all(&folder).expect("Prometheus' folder");
        fs::write(folder.join("prometheus.yml"), config(running)).expect("its config");
        let listen = unused_port(running);
        let log = folder.join("prometheus.log");
        let mut command = Command::new("prometheus");
        command.current_dir(&folder).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address={listen}")).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).expect("a file for its log"));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut prometheus = Self { child, log, client: Client::new(listen, None) };
        wait::until("Prometheus is ready", || {
            let ended = prometheus.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "Prometheus ended: {ended:?}\n{}", prometheus.log());
            prometheus.client.try_get("/-/ready").is_ok_and(|answer| answer.status == 200)
        });
        prometheus
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The current result of an expression.
    ///
    /// # Panics
    /// Prometheus refuses it.
    pub fn query(&self, expression: &str) -> Vec<Series> {
        let answer = self.client.get(&format!("/api/v1/query?query={}", percent_encoded(expression)));
        assert_eq!(answer.status, 200, "{expression}: {answer}");
        let answer = answer.json();
        let found = answer.pointer("/data/result").and_then(Value::as_array).expect("a vector");
        found.iter().map(|series| read_series(series).expect("a series")).collect()
    }

    /// The sum over the current result of an expression; `None` if that is empty.
    pub fn sum(&self, expression: &str) -> Option<f64> {
        let found = self.query(expression);
        (!found.is_empty()).then(|| found.iter().map(|(_, value)| value).sum())
    }

    /// The alert rules that it has loaded, as in its API.
    pub fn alert_rules(&self) -> Vec<Value> {
        let answer = self.client.get("/api/v1/rules?type=alert").json();
        let groups = answer.pointer("/data/groups").and_then(Value::as_array).expect("the groups");
        groups.iter().flat_map(|group| group["rules"].as_array().expect("the rules")).cloned().collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        process::kill_and_reap(&mut self.child);
    }
}

/// The shipped files with other addresses, and intervals short enough for a test.
fn config(running: &Deployment) -> String {
    let folder = binaries::workspace().join(FOLDER);
    let shipped = fs::read_to_string(folder.join("prometheus.yml")).expect("what is shipped");
    [
        ("127.0.0.1:1338", address::at(running.address, 1338).to_string()),
        ("127.0.0.1:1339", address::at(running.address, 1339).to_string()),
        ("scrape_interval: 15s", "scrape_interval: 200ms".to_owned()),
        ("evaluation_interval: 15s", "evaluation_interval: 500ms".to_owned()),
        ("- alerts.yml", format!("- {}", folder.join("alerts.yml").display())),
    ]
    .into_iter()
    .fold(shipped, |text, (shipped, ours)| {
        assert!(text.contains(shipped), "{FOLDER}/prometheus.yml has no {shipped:?} any more");
        text.replace(shipped, &ours)
    })
}

fn unused_port(running: &Deployment) -> SocketAddr {
    let listener = TcpListener::bind((running.address, 0)).expect("a free port");
    listener.local_addr().expect("its number")
}

fn read_series(series: &Value) -> Option<Series> {
    let labels = series.get("metric")?.as_object()?.iter();
    let labels = labels.filter(|(name, _)| *name != "__name__");
    let labels = labels.map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    let value = series.pointer("/value/1")?.as_str()?.parse().ok()?;
    Some((labels.collect::<Option<_>>()?, value))
}
