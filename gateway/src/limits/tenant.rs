//! The limits of a tenant: a rate, and requests in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::RateLimiter;
use governor::clock::{Clock, QuantaClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use sq_shared::config::{TenantLimits, units::Rate};

use super::LimitError;
use super::rate_status::{RateStatus, quota};

pub(crate) struct TenantLimiter {
    rate: Option<Arc<TenantRate>>,
    in_flight_limit: Option<usize>,
    /// A reload may change the limit while permits are held. (tokio's semaphore cannot shrink below the permits held, and a new
    /// one would not count them.) Counted without a limit too, because the next reload may set one.
    in_flight: Arc<AtomicUsize>,
}

/// Counts as one of the tenant's requests in flight until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

struct TenantRate {
    rate: Rate,
    limiter: RateLimiter<NotKeyed, InMemoryState, QuantaClock, StateInformationMiddleware>,
}

impl TenantLimiter {
    /// The limits of the config. What was used of an unchanged rate still counts, and so do the requests in flight.
    pub(crate) fn new(limits: &TenantLimits, previous: Option<&Self>) -> Self {
        let new_rate =
            |rate| TenantRate { rate, limiter: RateLimiter::direct(quota(rate)).with_middleware() };
        let kept = previous.and_then(|earlier| earlier.rate.as_ref());
        let rate = limits.per_tenant.map(|rate| match kept {
            Some(kept) if kept.rate == rate => Arc::clone(kept),
            _ => Arc::new(new_rate(rate)),
        });
        let in_flight = previous.map(|earlier| Arc::clone(&earlier.in_flight)).unwrap_or_default();
        Self { rate, in_flight_limit: limits.in_flight, in_flight }
    }

    /// Charges a request to the tenant; `None` when there is no limit.
    pub(crate) fn charge_request(&self) -> Result<Option<RateStatus>, LimitError> {
        let Some(TenantRate { rate, limiter }) = self.rate.as_deref() else { return Ok(None) };
        match limiter.check() {
            Ok(snapshot) => Ok(Some(RateStatus::allowed(*rate, &snapshot))),
            Err(not_until) => {
                Err(LimitError::PerTenant(RateStatus::refused(*rate, &not_until, limiter.clock().now())))
            }
        }
    }

    /// Counts a request as in flight until the permit is dropped. Nothing waits for a permit.
    pub(crate) fn acquire_in_flight(&self) -> Result<Permit, LimitError> {
        let limit = self.in_flight_limit.unwrap_or(usize::MAX);
        let one_more = |held| (held < limit).then_some(held + 1);
        match self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Permit(Arc::clone(&self.in_flight))),
            Err(_) => Err(LimitError::InFlight(limit)),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant_limits(rate: &str, in_flight: Option<usize>) -> TenantLimits {
        let per_tenant = Some(rate.parse().unwrap());
        TenantLimits { per_tenant, in_flight, quota_bytes: None, phexts: None, memory_bytes: 1 }
    }

    #[test]
    fn what_a_tenant_has_used_survives_a_change_of_the_other_limit() {
        let left = |limiter: &TenantLimiter| limiter.charge_request().unwrap().unwrap().remaining;
        let first = TenantLimiter::new(&tenant_limits("2/day", None), None);
        let in_flight = first.acquire_in_flight().unwrap();
        assert_eq!(left(&first), 1);
        let second = TenantLimiter::new(&tenant_limits("2/day", Some(2)), Some(&first));
        assert_eq!(left(&second), 0);
        let also = second.acquire_in_flight().unwrap();
        assert_eq!(
            second.acquire_in_flight().err(),
            Some(LimitError::InFlight(2)),
            "the first one is in flight still"
        );
        let third = TenantLimiter::new(&tenant_limits("3/day", Some(1)), Some(&second));
        assert_eq!(left(&third), 2, "a new rate starts with its full count");
        drop(also);
        assert_eq!(third.acquire_in_flight().err(), Some(LimitError::InFlight(1)));
        drop(in_flight);
        assert!(third.acquire_in_flight().is_ok());
    }
}
