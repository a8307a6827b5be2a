//! What is counted, for Prometheus. Label values come from the registry or from a fixed list, never from a request, so
//! the number of series is bounded: [`NO_TENANT`] and [`Command::Unknown`] stand for what is not known.
//!
//! To count a request takes 130 ns: one look-up, of its tenant's counter (80 ns), and two histograms that are at hand.
//! Nothing is allocated for it, but with the first request of a series.

mod command;

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::{Metric, MetricFamily};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};
use sq_shared::problem::Code;
use sq_shared::registry::TenantState;

pub use command::Command;
use command::CommandHistogram;

use crate::directory::Directory;

/// The tenant of a request without a good key. No tenant has this name.
pub const NO_TENANT: &str = "-";

/// The gateway's counters. What only a snapshot can tell is looked up when somebody asks.
pub struct Metrics {
    requests: IntCounterVec,
    request_duration: CommandHistogram,
    upstream_duration: CommandHistogram,
    rejected: IntCounterVec,
    reloads: IntCounterVec,
    /// Client connections that are open.
    pub connections: IntGauge,
    /// 1 while the data root is missing, else 0; each request looks at it.
    pub data_root_missing: IntGauge,
}

/// A request that has been answered, or whose client went away.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// Whose it was, or [`NO_TENANT`].
    pub tenant: &'a str,
    /// What it asked for.
    pub command: Command,
    /// The answer's status; 0 when none was sent.
    pub status: u16,
    /// The code of a refusal.
    pub code: Option<Code>,
    /// From the head's last byte to the answer's.
    pub duration: Duration,
    /// The part of it in which the worker had the whole request and no answer had begun; `None` when none was asked.
    pub upstream: Option<Duration>,
}

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// What the files say is in force.
    Accepted,
    /// They have mistakes; what was in force stays.
    Rejected,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// A name or a label is not Prometheus's: a defect here.
    pub fn new() -> prometheus::Result<Self> {
        let counters =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let metrics = Self {
            requests: counters(
                "sq_gateway_requests_total",
                "Requests answered, by tenant, command and status; status 0 is a client that went away.",
                &["tenant", "command", "status"],
            )?,
            request_duration: CommandHistogram::new(
                "sq_gateway_request_duration_seconds",
                "From the last byte of a request's head to the last byte of its answer.",
            )?,
            upstream_duration: CommandHistogram::new(
                "sq_gateway_upstream_duration_seconds",
                "From the last byte of a request sent to its worker to the head of the worker's answer.",
            )?,
            rejected: counters("sq_gateway_rejected_total", "Refused requests, by code.", &["code"])?,
            reloads: counters(
                "sq_gateway_config_reloads_total",
                "Reloads of config and registry, by result.",
                &["result"],
            )?,
            connections: IntGauge::new("sq_gateway_connections", "Client connections that are open.")?,
            data_root_missing: IntGauge::new(
                "sq_gateway_data_root_missing",
                "1 while the data root is not there, and no request is served; else 0.",
            )?,
        };
        // A rate needs a first value of zero: without it the first reload that is rejected would not be seen.
        for result in [Reload::Accepted, Reload::Rejected] {
            metrics.reloads.with_label_values(&[result.as_str()]);
        }
        for code in Code::OF_CLIENT_API {
            metrics.rejected.with_label_values(&[code.as_str()]);
        }
        Ok(metrics)
    }

    /// Counts a request.
    pub fn ended(&self, ended: &Ended<'_>) {
        let mut digits = [0; 3];
        let status = status_text(ended.status, &mut digits);
        self.requests.with_label_values(&[ended.tenant, ended.command.as_str(), status]).inc();
        self.request_duration.observe(ended.command, ended.duration.as_secs_f64());
        if let Some(upstream) = ended.upstream {
            self.upstream_duration.observe(ended.command, upstream.as_secs_f64());
        }
        if let Some(code) = ended.code {
            self.rejected.with_label_values(&[code.as_str()]).inc();
        }
    }

    /// Whether the data root is missing now.
    pub fn is_data_root_missing(&self) -> bool {
        self.data_root_missing.get() != 0
    }

    /// Counts a reload.
    pub fn reloaded(&self, result: Reload) {
        self.reloads.with_label_values(&[result.as_str()]).inc();
    }

    /// Drops the series of tenants that are no longer there.
    pub fn keep_tenants_of(&self, directory: &Directory) {
        for family in self.requests.collect() {
            for metric in family.get_metric().iter().filter(|metric| is_of_nobody(metric, directory)) {
                let values = ["tenant", "command", "status"].map(|name| label(metric, name));
                // It is there: it was listed a moment ago, and nobody else removes one.
                let _ = self.requests.remove_label_values(&values);
            }
        }
    }

    /// The requests of tenants that are there. One that was in flight when its tenant was removed has made its series
    /// anew, and the next reload drops it.
    fn requests_of(&self, directory: &Directory) -> Vec<MetricFamily> {
        let mut families = self.requests.collect();
        for family in &mut families {
            let mut metrics = family.take_metric();
            metrics.retain(|metric| !is_of_nobody(metric, directory));
            family.set_metric(metrics);
        }
        families
    }

    /// Every metric, with what the snapshot in force adds.
    ///
    /// # Errors
    /// A name or a label is not Prometheus's: a defect here.
    pub fn gather(&self, directory: &Directory) -> prometheus::Result<Vec<MetricFamily>> {
        let gauges = |name: &str, help: &str, label: &str| IntGaugeVec::new(Opts::new(name, help), &[label]);
        let in_flight = gauges("sq_gateway_in_flight", "Requests in flight, by tenant.", "tenant")?;
        let states = gauges("sq_gateway_tenants", "Tenants of the registry, by state.", "state")?;
        for state in TenantState::ALL {
            states.with_label_values(&[state.as_str()]).set(0);
        }
        for tenant in directory.tenants() {
            states.with_label_values(&[tenant.state.as_str()]).inc();
            in_flight.with_label_values(&[tenant.name.as_str()]).set(count(tenant.limiter.in_flight()));
        }
        let keys =
            gauges("sq_gateway_limiter_keys", "Client addresses that a limiter remembers.", "limiter")?;
        for (limiter, addresses) in directory.client_limits.remembered() {
            keys.with_label_values(&[limiter]).set(count(addresses));
        }
        let of_requests =
            [self.requests_of(directory), self.request_duration.collect(), self.upstream_duration.collect()];
        let others: [&dyn Collector; 7] = [
            &self.rejected,
            &self.reloads,
            &self.connections,
            &self.data_root_missing,
            &in_flight,
            &states,
            &keys,
        ];
        let all = of_requests.into_iter().flatten().chain(others.into_iter().flat_map(Collector::collect));
        // One without a series, as before the first request, cannot be written.
        Ok(all.filter(|family| !family.get_metric().is_empty()).collect())
    }
}

impl Reload {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

/// Whether a series is that of a tenant that the directory does not have.
fn is_of_nobody(metric: &Metric, directory: &Directory) -> bool {
    let tenant = label(metric, "tenant");
    tenant != NO_TENANT && !directory.has_tenant(tenant)
}

fn label<'m>(metric: &'m Metric, name: &str) -> &'m str {
    metric.get_label().iter().find(|label| label.name() == name).map_or("", |label| label.value())
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The status without an allocation: three digits, or 0. One that nobody sends is `other`: a worker that was taken over
/// must not make a series of each number.
fn status_text(status: u16, digits: &mut [u8; 3]) -> &str {
    let [hundreds, tens, ones] = digits;
    if status == 0 {
        return "0";
    }
    let is_success = matches!(status, 200 | 204);
    if !is_success && status != 500 && !Code::OF_CLIENT_API.iter().any(|code| code.status() == status) {
        return "other";
    }
    let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or(0);
    (*hundreds, *tens, *ones) = (digit(status / 100), digit(status / 10), digit(status));
    std::str::from_utf8(digits).unwrap_or("0")
}

/// How long requests took since the start, over all commands.
#[derive(Debug, serde::Serialize)]
pub struct Latency {
    /// From the shortest to the longest; what took longer than the last is in `count` alone.
    pub buckets: Vec<LatencyBucket>,
    /// All requests.
    pub count: u64,
    /// How long they took together, in seconds.
    pub sum_s: f64,
}

/// The requests that took at most so long.
#[derive(Debug, serde::Serialize)]
pub struct LatencyBucket {
    /// In seconds.
    pub le_s: f64,
    /// How many.
    pub count: u64,
}

impl Metrics {
    /// Refused requests since the start, by code.
    pub fn rejected_by_code(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Code::OF_CLIENT_API
            .iter()
            .map(|code| (code.as_str(), self.rejected.with_label_values(&[code.as_str()]).get()))
    }

    /// How long requests took since the start.
    pub fn latency(&self) -> Latency {
        let buckets = command::LATENCY_BUCKETS_S.map(|le_s| LatencyBucket { le_s, count: 0 });
        let mut latency = Latency { buckets: buckets.into(), count: 0, sum_s: 0.0 };
        let families = self.request_duration.collect();
        for histogram in
            families.iter().flat_map(MetricFamily::get_metric).map(|metric| metric.get_histogram())
        {
            latency.count += histogram.get_sample_count();
            latency.sum_s += histogram.get_sample_sum();
            for (sum, bucket) in latency.buckets.iter_mut().zip(histogram.get_bucket()) {
                sum.count += bucket.cumulative_count();
            }
        }
        latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_nobody_sends_makes_no_series_of_its_own() {
        let mut digits = [0; 3];
        for (status, text) in [(0, "0"), (200, "200"), (204, "204"), (412, "412"), (500, "500"), (507, "507")]
        {
            assert_eq!(status_text(status, &mut digits), text);
        }
        for foreign in [1, 99, 100, 199, 201, 299, 418, 599, 999, u16::MAX] {
            assert_eq!(status_text(foreign, &mut digits), "other");
        }
    }
}
