//! The content of `/metrics`, series by series (Prometheus text format 0.0.4).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::client::Client;
use crate::root::Root;
use crate::{address, wait};

/// One response of `/metrics`.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// The response's text.
    pub text: String,
    /// The series with their values; a series is its name with its labels, as written.
    series: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads the metrics of a deployment's gateway, by the address of all its listeners.
    ///
    /// # Panics
    /// It does not respond, or not in the format.
    pub fn of_gateway(deployment: Ipv4Addr) -> Self {
        Self::at(deployment, 1338)
    }

    /// Reads the metrics of a deployment's pool.
    ///
    /// # Panics
    /// It does not respond, or not in the format.
    pub fn of_pool(deployment: Ipv4Addr) -> Self {
        Self::at(deployment, 1339)
    }

    fn at(deployment: Ipv4Addr, port: u16) -> Self {
        let answer = Client::new(address::at(deployment, port), None).get("/metrics");
        let text = answer.ok().to_owned();
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"), "{answer}");
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.map(|line| sample(line).unwrap_or_else(|| panic!("no series: {line}"))).collect();
        Self { text, series }
    }

    /// The value of a series, if it exists.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.series.get(series).copied()
    }

    /// The value of a series; 0 if it does not exist.
    pub fn value(&self, series: &str) -> f64 {
        self.get(series).unwrap_or_default()
    }

    /// The series of one metric that are not 0, with their values.
    pub fn of(&self, metric: &str) -> BTreeMap<String, f64> {
        let series = self.series.iter().filter(|(series, value)| name(series) == metric && **value != 0.0);
        series.map(|(series, value)| (series.clone(), *value)).collect()
    }

    /// The sum of all series of one metric.
    pub fn sum(&self, metric: &str) -> f64 {
        self.of(metric).values().sum()
    }

    /// Every series.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.series.keys().map(String::as_str)
    }
}

fn name(series: &str) -> &str {
    series.split('{').next().unwrap_or(series)
}

/// How many reloads of the gateway had this result, `accepted` or `rejected`.
pub fn reloads(running: &Root, result: &str) -> f64 {
    let series = format!("sq_gateway_config_reloads_total{{result=\"{result}\"}}");
    Scrape::of_gateway(running.address).value(&series)
}

/// Runs something that makes the gateway reload, and waits for a reload with this result.
pub fn reload_by(running: &Root, result: &str, cause: impl FnOnce()) {
    let before = reloads(running, result);
    cause();
    wait::until(&format!("a reload that is {result}"), || reloads(running, result) > before);
}
