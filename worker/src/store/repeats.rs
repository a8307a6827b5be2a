//! The keys of recent writes: a request that comes twice under one key is applied once.

use std::collections::{HashMap, VecDeque};

/// Most keys of clients that a phext remembers: the oldest goes first.
pub(super) const KEYS: usize = 4096;

/// How long a client's key is remembered, in microseconds: 24 hours.
const LIFETIME_US: u64 = 24 * 60 * 60 * 1_000_000;

/// Most keys of the gateway, and how long they live: it sends a request again at once, a few times.
const GATEWAY_KEYS: usize = 2048;
const GATEWAY_LIFETIME_US: u64 = 10 * 60 * 1_000_000;

/// What a remembered key takes in memory: itself, its answer, its place in the order, and the table's slack.
const KEY_BYTES: u64 = 128;

/// A key under which the same write may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RepeatKey {
    /// Whose key it is: keys of different origins never meet.
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

impl RepeatKey {
    /// The key of a text.
    pub fn new(origin: KeyOrigin, text: &str) -> Self {
        Self { origin, digest: xxhash_rust::xxh3::xxh3_128(text.as_bytes()) }
    }
}

/// What is known of a write whose key is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remembered {
    /// What was asked for.
    pub(super) fingerprint: u128,
    /// The number in its answer.
    pub(super) answer_bytes: u64,
    /// When it was applied, in microseconds since 1970.
    pub(super) time_us: u64,
}

/// The keys of a phext. Each write has one, so those of the gateway must not push the clients' out.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    by_key: HashMap<RepeatKey, Remembered>,
    /// The oldest first.
    clients: VecDeque<RepeatKey>,
    gateways: VecDeque<RepeatKey>,
}

impl Repeats {
    /// What is known under a key at this time.
    pub(super) fn get(&self, key: &RepeatKey, now_us: u64) -> Option<Remembered> {
        self.by_key.get(key).copied().filter(|known| key.origin.is_alive(known, now_us))
    }

    /// Remembers a key; others of its origin may be forgotten for it.
    pub(super) fn insert(&mut self, key: RepeatKey, remembered: Remembered) {
        let order = match key.origin {
            KeyOrigin::Client => &mut self.clients,
            KeyOrigin::Gateway => &mut self.gateways,
        };
        match self.by_key.insert(key, remembered) {
            None => {}
            // A journal may bring it twice: carried over, and with its edit.
            Some(known) if known == remembered => return,
            // It had expired and was used again: its place in the order is a new one.
            Some(_) => order.retain(|other| *other != key),
        }
        order.push_back(key);
        while let Some(oldest) = order.front() {
            let known = self.by_key.get(oldest);
            let is_alive = known.is_some_and(|known| key.origin.is_alive(known, remembered.time_us));
            if is_alive && order.len() <= key.origin.most_keys() {
                return;
            }
            self.by_key.remove(oldest);
            order.pop_front();
        }
    }

    /// Forgets a key: its write was not made.
    pub(super) fn remove(&mut self, key: &RepeatKey) {
        if self.by_key.remove(key).is_some() {
            let order = match key.origin {
                KeyOrigin::Client => &mut self.clients,
                KeyOrigin::Gateway => &mut self.gateways,
            };
            // It is one of the last.
            if let Some(index) = order.iter().rposition(|other| other == key) {
                order.remove(index);
            }
        }
    }

    /// All that are alive, the oldest of each origin first.
    pub(super) fn alive(&self, now_us: u64) -> impl Iterator<Item = (RepeatKey, Remembered)> {
        let keys = self.clients.iter().chain(&self.gateways);
        let known = keys.filter_map(|key| Some((*key, *self.by_key.get(key)?)));
        known.filter(move |(key, remembered)| key.origin.is_alive(remembered, now_us))
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        KEY_BYTES * self.by_key.len() as u64
    }
}

impl KeyOrigin {
    fn is_alive(self, remembered: &Remembered, now_us: u64) -> bool {
        let lifetime_us = match self {
            Self::Client => LIFETIME_US,
            Self::Gateway => GATEWAY_LIFETIME_US,
        };
        now_us.saturating_sub(remembered.time_us) < lifetime_us
    }

    fn most_keys(self) -> usize {
        match self {
            Self::Client => KEYS,
            Self::Gateway => GATEWAY_KEYS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> RepeatKey {
        RepeatKey::new(KeyOrigin::Client, text)
    }

    fn at(time_us: u64) -> Remembered {
        Remembered { fingerprint: 7, answer_bytes: 1, time_us }
    }

    #[test]
    fn the_last_4096_keys_are_remembered_and_no_more() {
        let mut repeats = Repeats::default();
        for number in 0..=KEYS {
            repeats.insert(key(&number.to_string()), at(1));
        }
        assert_eq!(repeats.len(), KEYS);
        assert_eq!(repeats.get(&key("0"), 1), None);
        assert_eq!(repeats.get(&key("1"), 1), Some(at(1)));
        assert_eq!(repeats.get(&RepeatKey::new(KeyOrigin::Gateway, "1"), 1), None);
    }

    #[test]
    fn the_gateways_keys_push_no_clients_out() {
        let mut repeats = Repeats::default();
        repeats.insert(key("client"), at(1));
        for number in 0..=GATEWAY_KEYS {
            repeats.insert(RepeatKey::new(KeyOrigin::Gateway, &number.to_string()), at(1));
        }
        assert_eq!((repeats.len(), repeats.get(&key("client"), 1)), (GATEWAY_KEYS + 1, Some(at(1))));
        let gateways = RepeatKey::new(KeyOrigin::Gateway, "9");
        assert!(repeats.get(&gateways, GATEWAY_LIFETIME_US).is_some());
        assert!(repeats.get(&gateways, GATEWAY_LIFETIME_US + 1).is_none());
    }

    #[test]
    fn a_key_lives_for_a_day() {
        let mut repeats = Repeats::default();
        repeats.insert(key("a"), at(5));
        assert!(repeats.get(&key("a"), 5 + LIFETIME_US - 1).is_some());
        assert!(repeats.get(&key("a"), 5 + LIFETIME_US).is_none());
        repeats.insert(key("a"), at(5 + LIFETIME_US));
        assert_eq!((repeats.len(), repeats.get(&key("a"), 5 + LIFETIME_US).is_some()), (1, true));
        repeats.insert(key("b"), at(5 + 2 * LIFETIME_US));
        assert_eq!(repeats.alive(5 + 2 * LIFETIME_US).map(|(key, _)| key).collect::<Vec<_>>(), [key("b")]);
        assert_eq!(repeats.len(), 1);
    }
}
