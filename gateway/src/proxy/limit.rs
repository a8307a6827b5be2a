//! How much one client address and one tenant may ask. Rates are GCRA by `governor`, whose burst is the
//! whole count; requests in flight are the permits of a semaphore.

mod address_store;
mod in_flight;

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, QuantaClock, QuantaInstant};
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};
use sq_shared::config::{Limits, TenantLimits, units::Rate};

use address_store::{AddressStore, OWN_PLACES, Place};
pub use in_flight::Permit;
use in_flight::Permits;

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
        let missing = if remaining == 0 { 1 } else { rate.count.get().saturating_sub(remaining) };
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

/// A rate by client address.
struct KeyedLimiter {
    rate: Rate,
    limiter: RateLimiter<Place, AddressStore, QuantaClock, StateInformationMiddleware>,
}

impl KeyedLimiter {
    fn new(rate: Rate) -> Self {
        Self { rate, limiter: RateLimiter::new(quota(rate), AddressStore::new(), QuantaClock::default()) }
    }

    fn is_full(&self) -> bool {
        self.limiter.len() >= OWN_PLACES
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

    /// Whether newcomers have no place of their own in one of the stores.
    pub fn are_full(&self) -> bool {
        self.limiters().any(KeyedLimiter::is_full)
    }

    /// Forgets the addresses that have their full count again.
    pub fn forget_idle(&self) {
        for limiter in self.limiters() {
            let was_full = limiter.is_full();
            limiter.limiter.retain_recent();
            // What an attack has filled it fills again.
            if !was_full {
                limiter.limiter.shrink_to_fit();
            }
        }
    }

    fn limiters(&self) -> impl Iterator<Item = &KeyedLimiter> {
        [&self.per_ip, &self.failed_keys].into_iter().flatten().map(Arc::as_ref)
    }
}

/// The limits of one tenant.
pub struct TenantLimiter {
    rate: Option<Arc<TenantRate>>,
    in_flight: Permits,
}

struct TenantRate {
    rate: Rate,
    limiter: RateLimiter<NotKeyed, InMemoryState, QuantaClock, StateInformationMiddleware>,
}

impl TenantLimiter {
    /// Limits as they are now. What was used of those before counts: of the rate if it is the same, and of the
    /// requests in flight always.
    pub fn new(limits: &TenantLimits, previous: Option<&Self>) -> Self {
        let new_rate =
            |rate| TenantRate { rate, limiter: RateLimiter::direct(quota(rate)).with_middleware() };
        let kept = previous.and_then(|earlier| earlier.rate.as_ref());
        let rate = limits.per_tenant.map(|rate| match kept {
            Some(kept) if kept.rate == rate => Arc::clone(kept),
            _ => Arc::new(new_rate(rate)),
        });
        let in_flight = match previous {
            Some(earlier) => earlier.in_flight.resized(limits.in_flight),
            None => Permits::new(limits.in_flight),
        };
        Self { rate, in_flight }
    }

    /// Charges a request to the tenant; `None` when there is no limit.
    ///
    /// # Errors
    /// The tenant has had its requests.
    pub fn charge_request(&self) -> Result<Option<Standing>, LimitError> {
        let Some(TenantRate { rate, limiter }) = self.rate.as_deref() else { return Ok(None) };
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
    pub fn enter(&self) -> Result<Permit, LimitError> {
        self.in_flight.acquire().map_err(LimitError::InFlight)
    }
}

/// Room for both policies with usual numbers.
const FIELD_BYTES: usize = 64;

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11, sections 3 and 4): `q` requests in
/// `w` seconds; `r` remain, `t` seconds until the count is full again, or, when none remains, until one more
/// passes. A refusal's `Retry-After` is the `t` of the rate that refused, and so not earlier (section 6).
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
    use super::address_store::SHARED_PLACES;
    use super::*;

    fn address(number: u32) -> IpAddr {
        // Every other one is the /64 of an IPv6 customer.
        match number % 2 {
            0 => IpAddr::from(number.to_be_bytes()),
            _ => IpAddr::from(((0x2001_0db8_u128 << 96) | (u128::from(number) << 64) | 1).to_be_bytes()),
        }
    }

    fn limiter(rate: &str) -> KeyedLimiter {
        KeyedLimiter::new(rate.parse().unwrap())
    }

    fn remaining(limiter: &KeyedLimiter, client: IpAddr) -> Option<u32> {
        limiter.charge(client).ok().map(|standing| standing.remaining)
    }

    #[test]
    fn an_ipv6_customer_is_a_64() {
        let place = |text: &str| Place::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(place("2001:db8:1:2::1"), place("2001:db8:1:2:ffff::9"));
        assert_ne!(place("2001:db8:1:2::1"), place("2001:db8:1:3::1"));
        assert_ne!(place("0.0.0.1"), place("::1"));
    }

    #[test]
    fn a_standing_says_what_remains_and_when_to_come_back() {
        let limiter = limiter("2/min");
        let client = "192.0.2.1".parse().unwrap();
        let standing = |result: Result<Standing, Standing>| {
            result.map(|standing| (standing.remaining, standing.reset_s)).ok()
        };
        assert_eq!(standing(limiter.charge(client)), Some((1, 30)));
        // One more passes long before the count is full.
        assert_eq!(standing(limiter.charge(client)), Some((0, 30)));
        let refused = limiter.charge(client).unwrap_err();
        assert!((29..=30).contains(&refused.reset_s), "{refused:?}");
    }

    #[test]
    fn there_are_so_many_places_and_no_more() {
        let limiter = limiter("2/day");
        let places = u32::try_from(OWN_PLACES).unwrap();
        (0..places - 1).for_each(|number| assert!(limiter.charge(address(number)).is_ok()));
        assert!(!limiter.is_full(), "full one before the limit");
        assert!(limiter.charge(address(places - 1)).is_ok());
        assert!(limiter.is_full());
        // One past it there is a shared place, which has the same rate.
        assert_eq!(remaining(&limiter, address(places)), Some(1));
        assert_eq!(remaining(&limiter, address(places)), Some(0));
        assert_eq!(remaining(&limiter, address(places)), None);
        assert_eq!(limiter.limiter.len(), OWN_PLACES);
    }

    #[test]
    fn a_million_addresses_from_several_threads() {
        let limiter = limiter("2/day");
        let established = "192.0.2.1".parse().unwrap();
        assert_eq!(remaining(&limiter, established), Some(1));
        let attack = |first: u32| {
            let mine = (first..1_000_000).step_by(4).map(|number| address(0x0a00_0000 + number));
            mine.filter(|client| limiter.charge(*client).is_ok()).count()
        };
        let passed: usize = std::thread::scope(|scope| {
            let attack = &attack;
            let threads: Vec<_> = (0..4).map(|first| scope.spawn(move || attack(first))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(limiter.limiter.len(), OWN_PLACES);
        let shared = usize::try_from(2 * SHARED_PLACES).unwrap();
        assert_eq!(passed, OWN_PLACES - 1 + shared, "one in each place of its own, two in each shared one");
        // Who was there before has its own count still.
        assert_eq!(remaining(&limiter, established), Some(0));
        limiter.limiter.retain_recent();
        assert_eq!(limiter.limiter.len(), OWN_PLACES, "a sweep took a place that was needed");
        assert_eq!(remaining(&limiter, established), None);
    }

    #[test]
    fn a_sweep_makes_room_for_newcomers() {
        let limiter = limiter("1000000/s");
        (0..u32::try_from(2 * OWN_PLACES).unwrap()).for_each(|number| {
            let _ = limiter.charge(address(number));
        });
        assert!(limiter.is_full());
        // Their counts have been full again since a microsecond after each.
        limiter.limiter.retain_recent();
        assert!(limiter.limiter.is_empty(), "{} are left", limiter.limiter.len());
        assert!(limiter.charge(address(1)).is_ok());
        assert_eq!(limiter.limiter.len(), 1);
    }

    fn tenant_limits(rate: &str, in_flight: Option<usize>) -> TenantLimits {
        let per_tenant = Some(rate.parse().unwrap());
        TenantLimits { per_tenant, in_flight, quota_bytes: None, memory_bytes: 1 }
    }

    #[test]
    fn what_a_tenant_has_used_survives_a_change_of_the_other_limit() {
        let left = |limiter: &TenantLimiter| limiter.charge_request().unwrap().unwrap().remaining;
        let first = TenantLimiter::new(&tenant_limits("2/day", None), None);
        let in_flight = first.enter().unwrap();
        assert_eq!(left(&first), 1);
        let second = TenantLimiter::new(&tenant_limits("2/day", Some(2)), Some(&first));
        assert_eq!(left(&second), 0);
        let also = second.enter().unwrap();
        assert_eq!(second.enter().err(), Some(LimitError::InFlight(2)), "the first one is in flight still");
        let third = TenantLimiter::new(&tenant_limits("3/day", Some(1)), Some(&second));
        assert_eq!(left(&third), 2, "another rate begins anew");
        drop(also);
        assert_eq!(third.enter().err(), Some(LimitError::InFlight(1)));
        drop(in_flight);
        assert!(third.enter().is_ok());
    }
}
