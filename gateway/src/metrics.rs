//! The Prometheus metrics. Label values come from the registry or from a fixed list, never from a request, which bounds the
//! number of series: [`NO_TENANT`] and [`CommandLabel::Unknown`] stand for what is not known.
//!
//! Counting a request takes 130 ns: a lookup of its tenant's counter (80 ns), and two histograms whose handles are kept.
//! Only the first request of a series allocates.

mod command_label;

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::{Metric, MetricFamily};
use prometheus::{IntCounterVec, IntGauge, Opts};
use sq_shared::problem::Code;

use command_label::CommandHistogram;
pub(crate) use command_label::CommandLabel;

/// The tenant label of a request without a valid key. No tenant can have this name.
pub(crate) const NO_TENANT: &str = "-";

/// The gateway's metrics, but for the gauges that a snapshot of the directory adds.
pub(crate) struct Metrics {
    requests: IntCounterVec,
    request_duration: CommandHistogram,
    upstream_duration: CommandHistogram,
    rejected: IntCounterVec,
    reloads: IntCounterVec,
    pub connections: IntGauge,
    /// 1 while the data root is missing, else 0. Each request reads it.
    pub data_root_missing: IntGauge,
}

/// A request that was answered, or whose client disconnected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestSummary<'a> {
    /// The tenant's name, or [`NO_TENANT`].
    pub tenant: &'a str,
    pub command: CommandLabel,
    /// The answer's status; 0 if none was sent.
    pub status: u16,
    /// The code of a refusal.
    pub code: Option<Code>,
    /// From the last byte of its head to the last byte of the answer.
    pub duration: Duration,
    /// The part of it in which the worker had the whole request and no answer had begun; `None` if no worker got it.
    pub upstream: Option<Duration>,
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
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
        // `rate()` needs a first value of zero to see the first rejected reload.
        for result in ["accepted", "rejected"] {
            metrics.reloads.with_label_values(&[result]);
        }
        for code in Code::OF_CLIENT_API {
            metrics.rejected.with_label_values(&[code.as_str()]);
        }
        Ok(metrics)
    }

    pub(crate) fn count_request(&self, request: &RequestSummary<'_>) {
        let mut digits = [0; 3];
        let status = status_text(request.status, &mut digits);
        self.requests.with_label_values(&[request.tenant, request.command.as_str(), status]).inc();
        self.request_duration.observe(request.command, request.duration.as_secs_f64());
        if let Some(upstream) = request.upstream {
            self.upstream_duration.observe(request.command, upstream.as_secs_f64());
        }
        if let Some(code) = request.code {
            self.rejected.with_label_values(&[code.as_str()]).inc();
        }
    }

    pub(crate) fn is_data_root_missing(&self) -> bool {
        self.data_root_missing.get() != 0
    }

    pub(crate) fn count_reload(&self, is_accepted: bool) {
        self.reloads.with_label_values(&[if is_accepted { "accepted" } else { "rejected" }]).inc();
    }

    /// Drops the series of tenants that are not in the registry any more.
    pub(crate) fn retain_tenants(&self, has_tenant: impl Fn(&str) -> bool) {
        for family in self.requests.collect() {
            for metric in family.get_metric().iter().filter(|metric| is_removed(metric, &has_tenant)) {
                let values = ["tenant", "command", "status"].map(|name| label(metric, name));
                // Another call may have removed it first.
                let _ = self.requests.remove_label_values(&values);
            }
        }
    }

    /// Every metric, without the series of removed tenants. (A request that was in flight when its tenant was removed creates
    /// its series again.)
    pub(crate) fn gather(&self, has_tenant: impl Fn(&str) -> bool) -> Vec<MetricFamily> {
        self.retain_tenants(has_tenant);
        let mut families = self.requests.collect();
        families.extend(self.request_duration.collect());
        families.extend(self.upstream_duration.collect());
        let others: [&dyn Collector; 4] =
            [&self.rejected, &self.reloads, &self.connections, &self.data_root_missing];
        families.extend(others.into_iter().flat_map(Collector::collect));
        families
    }
}

fn is_removed(metric: &Metric, has_tenant: impl Fn(&str) -> bool) -> bool {
    let tenant = label(metric, "tenant");
    tenant != NO_TENANT && !has_tenant(tenant)
}

fn label<'m>(metric: &'m Metric, name: &str) -> &'m str {
    metric.get_label().iter().find(|label| label.name() == name).map_or("", |label| label.value())
}

/// The status label, without an allocation: three digits, or 0. A status that is not the API's is `other`, because a
/// compromised worker must not create a series for each number.
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

/// Request durations since the start, over all commands.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Latency {
    /// Ascending and cumulative. Longer requests than the last bucket's are only in `count`.
    pub buckets: Vec<LatencyBucket>,
    /// All requests.
    pub count: u64,
    pub sum_s: f64,
}

/// The requests up to one duration.
#[derive(Debug, serde::Serialize)]
pub(crate) struct LatencyBucket {
    /// The duration, inclusive, in seconds.
    pub le_s: f64,
    pub count: u64,
}

impl Metrics {
    pub(crate) fn rejected_by_code(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Code::OF_CLIENT_API
            .iter()
            .map(|code| (code.as_str(), self.rejected.with_label_values(&[code.as_str()]).get()))
    }

    pub(crate) fn latency(&self) -> Latency {
        let buckets = command_label::LATENCY_BUCKETS_S.map(|le_s| LatencyBucket { le_s, count: 0 });
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
    fn a_status_outside_the_api_has_no_series() {
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
