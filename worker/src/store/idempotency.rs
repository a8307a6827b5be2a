//! Idempotency keys: a write that is sent again with the same key is applied once, and answered as the first time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Most keys that are remembered per phext; the oldest of the same origin is forgotten first. The gateway makes a key for
/// each write, and retries at once, a few times.
pub(super) const KEYS_PER_PHEXT: KeyLimits = KeyLimits { clients: 4096, gateways: 2048 };

/// How long a client's key is remembered at least.
///
/// A key's age counts from its write or, after a new start, from when its phext was loaded, by a clock that never steps:
/// the time of day may be set while a worker is down, and a key that then seemed too old would let its write be applied
/// twice.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a key of the gateway is remembered at least.
const GATEWAY_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// The memory of a remembered key: itself, its answer, its place in the order, and the table's slack.
const KEY_BYTES: u64 = 128;

/// The idempotency key of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriteKey {
    /// Keys of different origins never match.
    pub origin: KeyOrigin,
    /// XXH3 of its text, 128 bits.
    pub digest: u128,
}

/// Who made a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyOrigin {
    /// The client, in `Idempotency-Key`.
    Client,
    /// The gateway, for its own retries of one request.
    Gateway,
}

impl WriteKey {
    /// The key with this text.
    pub fn new(origin: KeyOrigin, text: &str) -> Self {
        Self { origin, digest: xxhash_rust::xxh3::xxh3_128(text.as_bytes()) }
    }
}

/// The first write with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RememberedWrite {
    /// Stands for the request: coordinate, kind and text.
    pub(super) fingerprint: u128,
    /// The number in its answer.
    pub(super) answer_bytes: u64,
    /// When it was applied, in microseconds since 1970.
    pub(super) time_us: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    remembered: RememberedWrite,
    since: Instant,
}

/// How many keys are remembered. Origins are counted apart, so the gateway's keys evict no client's.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyLimits {
    pub(super) clients: usize,
    pub(super) gateways: usize,
}

/// The keys of a phext, or of many.
#[derive(Debug)]
pub(super) struct RememberedKeys {
    most: KeyLimits,
    by_key: HashMap<WriteKey, Known>,
    /// The oldest first.
    clients: VecDeque<WriteKey>,
    gateways: VecDeque<WriteKey>,
}

impl RememberedKeys {
    pub(super) fn new(most: KeyLimits) -> Self {
        let (clients, gateways) = (VecDeque::new(), VecDeque::new());
        Self { most, by_key: HashMap::new(), clients, gateways }
    }

    /// The write of a key, unless it has expired.
    pub(super) fn get(&self, key: &WriteKey, now: Instant) -> Option<RememberedWrite> {
        let known = self.by_key.get(key).filter(|known| key.origin.is_alive(known, now));
        known.map(|known| known.remembered)
    }

    /// Remembers a key. The oldest ones of its origin may be forgotten for it.
    pub(super) fn insert(&mut self, key: WriteKey, remembered: RememberedWrite, now: Instant) {
        self.insert_known(key, Known { remembered, since: now }, now);
    }

    fn insert_known(&mut self, key: WriteKey, known: Known, now: Instant) {
        let (order, most) = match key.origin {
            KeyOrigin::Client => (&mut self.clients, self.most.clients),
            KeyOrigin::Gateway => (&mut self.gateways, self.most.gateways),
        };
        match self.by_key.insert(key, known) {
            None => {}
            // A journal may have it twice: carried over, and with its edit.
            Some(before) if before.remembered == known.remembered => return,
            // It had expired and was used again: it is the newest now.
            Some(_) => order.retain(|other| *other != key),
        }
        order.push_back(key);
        while let Some(oldest) = order.front() {
            let is_alive = self.by_key.get(oldest).is_some_and(|known| key.origin.is_alive(known, now));
            if is_alive && order.len() <= most {
                return;
            }
            self.by_key.remove(oldest);
            order.pop_front();
        }
    }

    /// Adds a phext's keys except `without`, each with its age, and renamed.
    pub(super) fn take_over(
        &mut self,
        keys: &Self,
        without: &[WriteKey],
        mut other_key: impl FnMut(&WriteKey) -> WriteKey,
        now: Instant,
    ) {
        let without: HashSet<&WriteKey> = without.iter().collect();
        let keys_in_order = keys.clients.iter().chain(&keys.gateways);
        for key in keys_in_order.filter(|key| !without.contains(key)) {
            if let Some(known) = keys.by_key.get(key).filter(|known| key.origin.is_alive(known, now)) {
                self.insert_known(other_key(key), *known, now);
            }
        }
    }

    pub(super) fn keep_only(&mut self, kept: &[WriteKey]) {
        let kept: HashSet<&WriteKey> = kept.iter().collect();
        self.by_key.retain(|key, _| kept.contains(key));
        self.clients.retain(|key| kept.contains(key));
        self.gateways.retain(|key| kept.contains(key));
    }

    /// Forgets a key whose write was not made.
    pub(super) fn remove(&mut self, key: &WriteKey) {
        if self.by_key.remove(key).is_some() {
            let order = match key.origin {
                KeyOrigin::Client => &mut self.clients,
                KeyOrigin::Gateway => &mut self.gateways,
            };
            // It is one of the newest.
            if let Some(index) = order.iter().rposition(|other| other == key) {
                order.remove(index);
            }
        }
    }

    /// All that have not expired, the oldest of each origin first.
    pub(super) fn alive(&self, now: Instant) -> impl Iterator<Item = (WriteKey, RememberedWrite)> {
        let keys = self.clients.iter().chain(&self.gateways);
        keys.filter_map(move |key| Some((*key, self.get(key, now)?)))
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        KEY_BYTES * self.by_key.len() as u64
    }
}

impl KeyOrigin {
    fn is_alive(self, known: &Known, now: Instant) -> bool {
        let lifetime = match self {
            Self::Client => LIFETIME,
            Self::Gateway => GATEWAY_LIFETIME,
        };
        now.saturating_duration_since(known.since) < lifetime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> WriteKey {
        WriteKey::new(KeyOrigin::Client, text)
    }

    const WRITE: RememberedWrite = RememberedWrite { fingerprint: 7, answer_bytes: 1, time_us: 1 };
    const MOMENT: Duration = Duration::from_micros(1);

    #[test]
    fn the_last_4096_keys_are_remembered_and_no_more() {
        let (mut repeats, now) = (RememberedKeys::new(KEYS_PER_PHEXT), Instant::now());
        for number in 0..=KEYS_PER_PHEXT.clients {
            repeats.insert(key(&number.to_string()), WRITE, now);
        }
        assert_eq!(repeats.len(), KEYS_PER_PHEXT.clients);
        assert_eq!(repeats.get(&key("0"), now), None);
        assert_eq!(repeats.get(&key("1"), now), Some(WRITE));
        assert_eq!(repeats.get(&WriteKey::new(KeyOrigin::Gateway, "1"), now), None);
    }

    #[test]
    fn the_gateways_keys_push_no_clients_out() {
        let (mut repeats, now) = (RememberedKeys::new(KEYS_PER_PHEXT), Instant::now());
        repeats.insert(key("client"), WRITE, now);
        for number in 0..=KEYS_PER_PHEXT.gateways {
            repeats.insert(WriteKey::new(KeyOrigin::Gateway, &number.to_string()), WRITE, now);
        }
        assert_eq!(
            (repeats.len(), repeats.get(&key("client"), now)),
            (KEYS_PER_PHEXT.gateways + 1, Some(WRITE))
        );
        let gateways = WriteKey::new(KeyOrigin::Gateway, "9");
        assert!(repeats.get(&gateways, now + GATEWAY_LIFETIME - MOMENT).is_some());
        assert!(repeats.get(&gateways, now + GATEWAY_LIFETIME).is_none());
    }

    #[test]
    fn a_key_lives_for_a_day() {
        let (mut repeats, now) = (RememberedKeys::new(KEYS_PER_PHEXT), Instant::now());
        repeats.insert(key("a"), WRITE, now);
        let day = now + LIFETIME;
        assert!(repeats.get(&key("a"), day - MOMENT).is_some());
        assert!(repeats.get(&key("a"), day).is_none());
        repeats.insert(key("a"), RememberedWrite { time_us: 2, ..WRITE }, day);
        assert_eq!((repeats.len(), repeats.get(&key("a"), day).is_some()), (1, true));
        repeats.insert(key("b"), WRITE, day + LIFETIME);
        assert_eq!(repeats.alive(day + LIFETIME).map(|(key, _)| key).collect::<Vec<_>>(), [key("b")]);
        assert_eq!(repeats.len(), 1);
    }
}
