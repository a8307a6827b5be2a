//! The gauges that are read off a snapshot when Prometheus scrapes.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};
use sq_shared::registry::TenantState;

use super::Directory;

impl Directory {
    /// Requests in flight, tenants by state, and addresses that the limiters remember.
    pub(crate) fn gauges(&self) -> prometheus::Result<Vec<MetricFamily>> {
        let gauges = |name: &str, help: &str, label: &str| IntGaugeVec::new(Opts::new(name, help), &[label]);
        let in_flight = gauges("sq_gateway_in_flight", "Requests in flight, by tenant.", "tenant")?;
        let states = gauges("sq_gateway_tenants", "Tenants of the registry, by state.", "state")?;
        for state in TenantState::ALL {
            states.with_label_values(&[state.as_str()]).set(0);
        }
        for tenant in self.tenants() {
            states.with_label_values(&[tenant.state.as_str()]).inc();
            in_flight.with_label_values(&[tenant.name.as_str()]).set(gauge(tenant.limiter.in_flight()));
        }
        let keys =
            gauges("sq_gateway_limiter_keys", "Client addresses that a limiter remembers.", "limiter")?;
        for (limiter, addresses) in self.client_limits.remembered() {
            keys.with_label_values(&[limiter]).set(gauge(addresses));
        }
        Ok([in_flight, states, keys].iter().flat_map(Collector::collect).collect())
    }
}

fn gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
