//! How much one client address and one tenant may ask. Rates are GCRA by `governor`, whose burst is the
//! whole count; requests in flight are a semaphore's permits.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, QuantaClock, QuantaInstant};
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};
use sq_shared::config::{Limits, TenantLimits, units::Rate};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Which limit a request ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The client address's rate.
    #[error("rate of the address, {0:?}")]
    PerIp(Standing),
    /// The tenant's rate.
    #[error("rate of the tenant, {0:?}")]
    PerTenant(Standing),
    /// The client address's wrong keys.
    #[error("wrong keys of the address, {0:?}")]
    FailedKeys(Standing),
    /// The tenant's requests at once.
    #[error("{0} requests of the tenant in flight")]
    InFlight(usize),
}

/// How a request stands with one rate, after it was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The rate.
    pub rate: Rate,
    /// Requests that would pass now.
    pub remaining: u32,
    /// Whole seconds: until the full count is there again, or, when nothing remains, until one request passes.
    pub reset_s: u64,
}

impl Standing {
    fn allowed(rate: Rate, snapshot: &StateSnapshot) -> Self {
        let remaining = snapshot.remaining_burst_capacity();
        let missing = rate.count.get().saturating_sub(remaining);
        let reset = rate.period.mul_f64(f64::from(missing) / f64::from(rate.count.get()));
        Self { rate, remaining, reset_s: whole_seconds(reset) }
    }

    fn refused(rate: Rate, not_until: &NotUntil<QuantaInstant>, now: QuantaInstant) -> Self {
        Self { rate, remaining: 0, reset_s: whole_seconds(not_until.wait_time_from(now)).max(1) }
    }
}

/// Rounded up: who waits that long has waited enough.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn quota(rate: Rate) -> Quota {
    let one = Quota::with_period(rate.period / rate.count.get()).unwrap_or(Quota::per_minute(rate.count));
    one.allow_burst(rate.count)
}

/// An IPv4 address, or the /64 that one IPv6 customer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ClientNetwork {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for ClientNetwork {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments().map(u64::from);
                Self::V6(a << 48 | b << 32 | c << 16 | d)
            }
        }
    }
}

type KeyedState = DashMapStateStore<ClientNetwork>;

/// A rate by client address.
struct KeyedLimiter {
    rate: Rate,
    limiter: RateLimiter<ClientNetwork, KeyedState, QuantaClock, StateInformationMiddleware>,
}

impl KeyedLimiter {
    fn new(rate: Rate) -> Self {
        Self { rate, limiter: RateLimiter::dashmap(quota(rate)).with_middleware() }
    }

    fn charge(&self, client: IpAddr) -> Result<Standing, Standing> {
        match self.limiter.check_key(&client.into()) {
            Ok(snapshot) => Ok(Standing::allowed(self.rate, &snapshot)),
            Err(not_until) => Err(Standing::refused(self.rate, &not_until, self.limiter.clock().now())),
        }
    }
}

/// The limits of client addresses. Each is `None` when it is off.
pub struct ClientLimits {
    per_ip: Option<Arc<KeyedLimiter>>,
    failed_keys: Option<Arc<KeyedLimiter>>,
}

impl ClientLimits {
    /// Limits from the config; those of before live on where the rate is the same.
    pub fn new(limits: &Limits, previous: Option<&Self>) -> Self {
        let keep = |rate: Option<Rate>, earlier: Option<&Arc<KeyedLimiter>>| {
            let rate = rate?;
            let kept = earlier.filter(|limiter| limiter.rate == rate).cloned();
            Some(kept.unwrap_or_else(|| Arc::new(KeyedLimiter::new(rate))))
        };
        Self {
            per_ip: keep(limits.per_ip, previous.and_then(|earlier| earlier.per_ip.as_ref())),
            failed_keys: keep(limits.failed_keys, previous.and_then(|earlier| earlier.failed_keys.as_ref())),
        }
    }

    /// Charges a request to its client address; `None` when there is no limit.
    ///
    /// # Errors
    /// The address has had its requests.
    pub fn charge_request(&self, client: IpAddr) -> Result<Option<Standing>, LimitError> {
        self.per_ip.as_ref().map(|limiter| limiter.charge(client).map_err(LimitError::PerIp)).transpose()
    }

    /// Charges a wrong key to its client address.
    ///
    /// # Errors
    /// The address has had its wrong keys.
    pub fn charge_failed_key(&self, client: IpAddr) -> Result<(), LimitError> {
        let Some(limiter) = &self.failed_keys else { return Ok(()) };
        limiter.charge(client).map(|_| ()).map_err(LimitError::FailedKeys)
    }

    /// Forgets the addresses that have their full count again.
    pub fn forget_idle(&self) {
        for limiter in [&self.per_ip, &self.failed_keys].into_iter().flatten() {
            limiter.limiter.retain_recent();
            limiter.limiter.shrink_to_fit();
        }
    }
}

/// The limits of one tenant.
pub struct TenantLimiter {
    limits: TenantLimits,
    rate: Option<TenantRate>,
    in_flight: Option<Arc<Semaphore>>,
}

struct TenantRate {
    rate: Rate,
    limiter: RateLimiter<NotKeyed, InMemoryState, QuantaClock, StateInformationMiddleware>,
}

impl TenantLimiter {
    /// Fresh limits.
    pub fn new(limits: &TenantLimits) -> Self {
        let rate = limits
            .per_tenant
            .map(|rate| TenantRate { rate, limiter: RateLimiter::direct(quota(rate)).with_middleware() });
        let in_flight =
            limits.in_flight.map(|count| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))));
        Self { limits: limits.clone(), rate, in_flight }
    }

    /// Whether these are the limits it was made for.
    pub fn holds(&self, limits: &TenantLimits) -> bool {
        (self.limits.per_tenant, self.limits.in_flight) == (limits.per_tenant, limits.in_flight)
    }

    /// Charges a request to the tenant; `None` when there is no limit.
    ///
    /// # Errors
    /// The tenant has had its requests.
    pub fn charge_request(&self) -> Result<Option<Standing>, LimitError> {
        let Some(TenantRate { rate, limiter }) = &self.rate else { return Ok(None) };
        match limiter.check() {
            Ok(snapshot) => Ok(Some(Standing::allowed(*rate, &snapshot))),
            Err(not_until) => {
                Err(LimitError::PerTenant(Standing::refused(*rate, &not_until, limiter.clock().now())))
            }
        }
    }

    /// Takes a place among the tenant's requests in flight; it is given back when the permit is dropped.
    ///
    /// # Errors
    /// All places are taken.
    pub fn enter(&self) -> Result<Option<OwnedSemaphorePermit>, LimitError> {
        let Some(semaphore) = &self.in_flight else { return Ok(None) };
        let permit = Arc::clone(semaphore).try_acquire_owned();
        permit.map(Some).map_err(|_| LimitError::InFlight(self.limits.in_flight.unwrap_or_default()))
    }
}

/// Room for both policies with usual numbers.
const FIELD_BYTES: usize = 64;

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10): `q` requests in `w`
/// seconds; `r` remain, `t` seconds until the count is full again, or until one more passes.
pub fn rate_limit_fields(standings: &[(&str, Option<Standing>)]) -> Option<(String, String)> {
    let mut policy = String::with_capacity(FIELD_BYTES);
    let mut state = String::with_capacity(FIELD_BYTES);
    for (name, standing) in standings.iter().filter_map(|(name, standing)| Some((name, (*standing)?))) {
        let separator = if policy.is_empty() { "" } else { ", " };
        let (quota, window_s) = (standing.rate.count, standing.rate.period.as_secs());
        // Writing to a string cannot fail.
        let _ = write!(policy, "{separator}\"{name}\";q={quota};w={window_s}");
        let _ = write!(state, "{separator}\"{name}\";r={};t={}", standing.remaining, standing.reset_s);
    }
    (!policy.is_empty()).then_some((policy, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_customer_is_a_64() {
        let key = |text: &str| ClientNetwork::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_ne!(key("0.0.0.1"), key("::1"));
    }

    #[test]
    fn a_standing_says_what_remains_and_when_to_come_back() {
        let limiter = KeyedLimiter::new("2/min".parse().unwrap());
        let client = "192.0.2.1".parse().unwrap();
        assert_eq!(
            limiter.charge(client).map(|standing| (standing.remaining, standing.reset_s)),
            Ok((1, 30))
        );
        assert_eq!(limiter.charge(client).map(|standing| standing.remaining), Ok(0));
        let refused = limiter.charge(client).unwrap_err();
        assert!((29..=30).contains(&refused.reset_s), "{refused:?}");
    }
}
