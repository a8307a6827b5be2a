//! The pool's Prometheus metrics. Label values are tenants of the registry or come from fixed lists, so the number of
//! series is bounded.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, TextEncoder};
use sq_shared::tenant::TenantName;

use super::desired::Account;
use super::observed::StartReason;
use super::report::Report;
use super::storage::Sizes;

/// The buckets of the cold-start histogram, in seconds. A start takes a few milliseconds, and the gateway waits no longer
/// than half a minute.
const COLD_START_BUCKETS_S: [f64; 12] =
    [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// The pool's counters. The gauges come from a [`Report`] when metrics are scraped.
#[derive(Debug)]
pub(crate) struct Metrics {
    starts: IntCounterVec,
    crashes: IntCounterVec,
    cold_start: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let counters =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let cold_start = HistogramOpts::new(
            "sq_pool_cold_start_seconds",
            "From when the pool hears of a waiting connection until the worker that it starts has applied its first \
             command; a client that is slow to send that command counts in.",
        );
        Ok(Self {
            starts: counters(
                "sq_pool_worker_starts_total",
                "Workers started, by tenant and reason: a connection to a sleeping tenant, or the first one after a \
                 crash or after an upgrade.",
                &["tenant", "reason"],
            )?,
            crashes: counters(
                "sq_pool_worker_crashes_total",
                "Workers that ended as they should not, or could not be started, by tenant.",
                &["tenant"],
            )?,
            cold_start: Histogram::with_opts(cold_start.buckets(COLD_START_BUCKETS_S.to_vec()))?,
        })
    }

    pub(crate) fn started(&self, tenant: &TenantName, reason: StartReason) {
        self.starts.with_label_values(&[tenant.as_str(), reason.as_str()]).inc();
    }

    /// Counts a worker that crashed or failed to start.
    pub(crate) fn crashed(&self, tenant: &TenantName) {
        self.crashes.with_label_values(&[tenant.as_str()]).inc();
    }

    /// Counts a cold start: a connection waited this long for the worker's first command.
    pub(crate) fn cold_started(&self, waited: Duration) {
        self.cold_start.observe(waited.as_secs_f64());
    }

    /// Creates the series of every tenant in the registry, and removes all others. Without a first value of zero, a rate
    /// would miss a tenant's first crash.
    pub(crate) fn sync_tenants(&self, accounts: &[Account]) {
        let tenants: BTreeSet<&str> = accounts.iter().map(|account| account.tenant.as_str()).collect();
        for tenant in &tenants {
            for reason in StartReason::ALL {
                self.starts.with_label_values(&[tenant, reason.as_str()]);
            }
            self.crashes.with_label_values(&[tenant]);
        }
        for counters in [&self.starts, &self.crashes] {
            for series in counters.collect().iter().flat_map(MetricFamily::get_metric) {
                let labels: HashMap<&str, &str> =
                    series.get_label().iter().map(|label| (label.name(), label.value())).collect();
                if labels.get("tenant").is_none_or(|tenant| !tenants.contains(tenant)) {
                    // Never fails: the series was just listed, and only this function removes one.
                    let _ = counters.remove(&labels);
                }
            }
        }
    }

    pub(crate) fn text(
        &self,
        report: &Report,
        sizes: &Sizes,
        missing_directories: usize,
    ) -> prometheus::Result<String> {
        let gauges = |name: &str, help: &str, label: &str| IntGaugeVec::new(Opts::new(name, help), &[label]);
        let workers = gauges(
            "sq_pool_workers",
            "Active tenants by the state of their worker, and workers that are stopping.",
            "state",
        )?;
        for (state, count) in report.states() {
            workers.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let storage = gauges(
            "sq_pool_storage_bytes",
            "The size of a tenant's .phext files; absent when its directory cannot be read.",
            "tenant",
        )?;
        let disk = gauges(
            "sq_pool_disk_bytes",
            "The space allocated to all files of a tenant's directory; absent when it cannot be read.",
            "tenant",
        )?;
        let quota = gauges(
            "sq_pool_quota_bytes",
            "What a tenant's phexts may have together; absent without a limit.",
            "tenant",
        )?;
        let as_gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        for account in report.accounts.iter() {
            let tenant = account.tenant.as_str();
            if let Some(size) = sizes.get(&account.tenant) {
                storage.with_label_values(&[tenant]).set(as_gauge(size.stored_bytes));
                disk.with_label_values(&[tenant]).set(as_gauge(size.disk_bytes));
            }
            if let Some(bytes) = account.quota_bytes {
                quota.with_label_values(&[tenant]).set(as_gauge(bytes));
            }
        }
        let missing = IntGauge::new(
            "sq_pool_directories_missing",
            "Tenants whose directory was there, and is not now; all of them when the data root is missing.",
        )?;
        missing.set(i64::try_from(missing_directories).unwrap_or(i64::MAX));
        let all: [&dyn Collector; 8] =
            [&workers, &self.starts, &self.cold_start, &self.crashes, &storage, &disk, &quota, &missing];
        // The text format does not allow a family without a series.
        let has_series = |family: &MetricFamily| !family.get_metric().is_empty();
        let families: Vec<MetricFamily> =
            all.into_iter().flat_map(Collector::collect).filter(has_series).collect();
        TextEncoder::new().encode_to_string(&families)
    }
}
