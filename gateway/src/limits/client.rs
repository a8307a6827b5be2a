//! The limits of a client address: requests, and wrong keys.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use governor::RateLimiter;
use governor::clock::{Clock, QuantaClock};
use governor::middleware::StateInformationMiddleware;
use sq_shared::config::{Limits, units::Rate};

use super::LimitError;
use super::address_store::{AddressStore, OWN_ENTRIES, Owner};
use super::rate_status::{RateStatus, quota};

/// One rate, counted per client address.
struct KeyedLimiter {
    rate: Rate,
    limiter: RateLimiter<Owner, AddressStore, QuantaClock, StateInformationMiddleware>,
}

impl KeyedLimiter {
    fn new(rate: Rate) -> Self {
        Self { rate, limiter: RateLimiter::new(quota(rate), AddressStore::new(), QuantaClock::default()) }
    }

    fn is_full(&self) -> bool {
        self.limiter.len() >= OWN_ENTRIES
    }

    fn charge(&self, client: IpAddr) -> Result<RateStatus, RateStatus> {
        match self.limiter.check_key(&client.into()) {
            Ok(snapshot) => Ok(RateStatus::allowed(self.rate, &snapshot)),
            Err(not_until) => Err(RateStatus::refused(self.rate, &not_until, self.limiter.clock().now())),
        }
    }
}

/// The limits of client addresses. Each is `None` when it is off.
pub(crate) struct ClientLimits {
    per_ip: Option<Arc<KeyedLimiter>>,
    failed_keys: Option<Arc<KeyedLimiter>>,
    /// Counted apart from tenants' keys, at the same rate: on loopback, clients and the operator may share an address.
    failed_admin_keys: Option<Arc<KeyedLimiter>>,
}

impl ClientLimits {
    /// The limits of the config. Where a rate is unchanged, what was used of it still counts.
    pub(crate) fn new(limits: &Limits, previous: Option<&Self>) -> Self {
        let keep = |rate: Option<Rate>, earlier: Option<&Arc<KeyedLimiter>>| {
            let rate = rate?;
            let kept = earlier.filter(|limiter| limiter.rate == rate).cloned();
            Some(kept.unwrap_or_else(|| Arc::new(KeyedLimiter::new(rate))))
        };
        Self {
            per_ip: keep(limits.per_ip, previous.and_then(|earlier| earlier.per_ip.as_ref())),
            failed_keys: keep(limits.failed_keys, previous.and_then(|earlier| earlier.failed_keys.as_ref())),
            failed_admin_keys: keep(
                limits.failed_keys,
                previous.and_then(|earlier| earlier.failed_admin_keys.as_ref()),
            ),
        }
    }

    /// Charges a request to its client address; `None` when there is no limit.
    pub(crate) fn charge_request(&self, client: IpAddr) -> Result<Option<RateStatus>, LimitError> {
        self.per_ip.as_ref().map(|limiter| limiter.charge(client).map_err(LimitError::PerIp)).transpose()
    }

    /// Charges a wrong key to its client address.
    pub(crate) fn charge_failed_key(&self, client: IpAddr) -> Result<(), LimitError> {
        charge_failure(self.failed_keys.as_deref(), client)
    }

    /// Charges a wrong admin key to its client address. All loopback addresses share one count, because a program on this
    /// machine can connect from any of 16 million. (For tenants' keys, a proxy on this machine may name its clients.)
    pub(crate) fn charge_failed_admin_key(&self, client: IpAddr) -> Result<(), LimitError> {
        let is_this_machine = client.to_canonical().is_loopback();
        let client = if is_this_machine { Ipv4Addr::LOCALHOST.into() } else { client };
        charge_failure(self.failed_admin_keys.as_deref(), client)
    }

    /// The number of addresses that each limiter remembers, by its field in `[limits]`.
    pub(crate) fn remembered(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let named = [("per_ip", &self.per_ip), ("failed_keys", &self.failed_keys)];
        named
            .into_iter()
            .map(|(name, limiter)| (name, limiter.as_ref().map_or(0, |limiter| limiter.limiter.len())))
    }

    /// Whether new addresses have to share entries in one of the stores.
    pub(crate) fn are_full(&self) -> bool {
        self.limiters().any(KeyedLimiter::is_full)
    }

    /// Forgets the addresses whose full rate is available again.
    pub(crate) fn forget_idle(&self) {
        for limiter in self.limiters() {
            let was_full = limiter.is_full();
            limiter.limiter.retain_recent();
            // An attack that has filled the store fills it again.
            if !was_full {
                limiter.limiter.shrink_to_fit();
            }
        }
    }

    fn limiters(&self) -> impl Iterator<Item = &KeyedLimiter> {
        [&self.per_ip, &self.failed_keys, &self.failed_admin_keys].into_iter().flatten().map(Arc::as_ref)
    }
}

fn charge_failure(limiter: Option<&KeyedLimiter>, client: IpAddr) -> Result<(), LimitError> {
    let Some(limiter) = limiter else { return Ok(()) };
    limiter.charge(client).map(|_| ()).map_err(LimitError::FailedKeys)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sq_shared::config::Config;

    use super::super::address_store::SHARED_ENTRIES;
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
        limiter.charge(client).ok().map(|status| status.remaining)
    }

    #[test]
    fn an_ipv6_customer_is_a_64() {
        let owner = |text: &str| Owner::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(owner("2001:db8:1:2::1"), owner("2001:db8:1:2:ffff::9"));
        assert_ne!(owner("2001:db8:1:2::1"), owner("2001:db8:1:3::1"));
        assert_ne!(owner("0.0.0.1"), owner("::1"));
    }

    #[test]
    fn all_of_loopback_has_one_count_of_wrong_admin_keys() {
        let text = "[limits]\nfailed_keys = \"3/min\"";
        let config = Config::parse(Path::new("/srv/gateway.toml"), text).unwrap();
        let limits = ClientLimits::new(&config.limits, None);
        let passes = |text: &str| limits.charge_failed_admin_key(text.parse().unwrap()).is_ok();
        assert!(["127.0.0.1", "::1", "::ffff:127.9.9.9"].into_iter().all(passes));
        assert!(!["127.0.0.2", "127.255.255.254", "::1", "::ffff:127.0.0.1"].into_iter().any(passes));
        assert!(["192.0.2.1", "192.0.2.2", "2001:db8::1"].into_iter().all(passes));
    }

    #[test]
    fn a_status_says_what_remains_and_when_to_come_back() {
        let limiter = limiter("2/min");
        let client = "192.0.2.1".parse().unwrap();
        let status = |result: Result<RateStatus, RateStatus>| {
            result.map(|status| (status.remaining, status.reset_s)).ok()
        };
        assert_eq!(status(limiter.charge(client)), Some((1, 30)));
        // One more passes long before the count is full.
        assert_eq!(status(limiter.charge(client)), Some((0, 30)));
        let refused = limiter.charge(client).unwrap_err();
        assert!((29..=30).contains(&refused.reset_s), "{refused:?}");
    }

    #[test]
    fn the_store_has_a_fixed_number_of_entries() {
        let limiter = limiter("2/day");
        let entries = u32::try_from(OWN_ENTRIES).unwrap();
        (0..entries - 1).for_each(|number| assert!(limiter.charge(address(number)).is_ok()));
        assert!(!limiter.is_full(), "full one before the limit");
        assert!(limiter.charge(address(entries - 1)).is_ok());
        assert!(limiter.is_full());
        // The next address gets a shared entry, which has the same rate.
        assert_eq!(remaining(&limiter, address(entries)), Some(1));
        assert_eq!(remaining(&limiter, address(entries)), Some(0));
        assert_eq!(remaining(&limiter, address(entries)), None);
        assert_eq!(limiter.limiter.len(), OWN_ENTRIES);
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
        assert_eq!(limiter.limiter.len(), OWN_ENTRIES);
        let shared = usize::try_from(2 * SHARED_ENTRIES).unwrap();
        assert_eq!(passed, OWN_ENTRIES - 1 + shared, "one per own entry, two per shared one");
        // An earlier address still has its own count.
        assert_eq!(remaining(&limiter, established), Some(0));
        limiter.limiter.retain_recent();
        assert_eq!(limiter.limiter.len(), OWN_ENTRIES, "a sweep removed an entry that was needed");
        assert_eq!(remaining(&limiter, established), None);
    }

    #[test]
    fn a_sweep_makes_room_for_new_addresses() {
        let limiter = limiter("1000000/s");
        (0..u32::try_from(2 * OWN_ENTRIES).unwrap()).for_each(|number| {
            let _ = limiter.charge(address(number));
        });
        assert!(limiter.is_full());
        // Each one had its full rate again a microsecond later.
        limiter.limiter.retain_recent();
        assert!(limiter.limiter.is_empty(), "{} are left", limiter.limiter.len());
        assert!(limiter.charge(address(1)).is_ok());
        assert_eq!(limiter.limiter.len(), 1);
    }
}
