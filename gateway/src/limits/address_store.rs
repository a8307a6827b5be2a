//! The rate state of client addresses, in bounded memory. governor's own store keeps an entry for every address, and an
//! attacker with an IPv6 /32 has four billion /64s.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::nanos::Nanos;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};
use governor::state::{InMemoryState, NotKeyed, StateStore};

/// The number of addresses that have their own entry: more than one host's customers use in the minute that an entry is
/// needed. An entry takes 25 bytes, in tables that are half to seven eighths full: 3 to 5 MB when all are used.
pub(super) const OWN_ENTRIES: usize = 100_000;

/// The number of entries that new addresses share once the store is full. Together they allow this many times the rate:
/// an attack that fills the store is slowed to that, and at worst an honest new address is refused with it.
pub(super) const SHARED_ENTRIES: u64 = 1024;

/// Shards, each with its own lock. A sweep blocks one shard at a time, for some 1,600 entries.
const SHARDS: usize = 64;

/// What an entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    V4(u32),
    /// The /64 of one IPv6 customer.
    V6(u64),
    /// A hash of an address that came when the store was full.
    Shared(u64),
}

impl From<IpAddr> for Owner {
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

/// One entry per address, up to [`OWN_ENTRIES`]; further addresses share [`SHARED_ENTRIES`]. An address keeps its entry until
/// its full rate is available again and a sweep removes it.
pub(super) struct AddressStore {
    entries: DashMapStateStore<Owner>,
    /// The number of entries that are not shared. (The map would lock every shard to count them.)
    own_count: AtomicUsize,
    /// Chooses the shared entry. Its key is random, so no client can choose an address that shares an entry with a victim.
    shared_hasher: RandomState,
}

impl AddressStore {
    pub(super) fn new() -> Self {
        Self {
            entries: DashMapStateStore::with_hasher_and_shard_amount(RandomState::new(), SHARDS),
            own_count: AtomicUsize::new(0),
            shared_hasher: RandomState::new(),
        }
    }

    /// Reserves an entry, if one is left.
    fn reserve(&self) -> bool {
        let one_more = |count| (count < OWN_ENTRIES).then_some(count + 1);
        self.own_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn release(&self, count: usize) {
        self.own_count.fetch_sub(count, Ordering::Relaxed);
    }
}

impl StateStore for AddressStore {
    type Key = Owner;

    fn measure_and_replace<T, F, E>(&self, owner: &Owner, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(state) = self.entries.get(owner) {
            return state.measure_and_replace(&NotKeyed::NonKey, decide);
        }
        if !self.reserve() {
            let shared = Owner::Shared(self.shared_hasher.hash_one(owner) % SHARED_ENTRIES);
            return self.entries.measure_and_replace(&shared, decide);
        }
        let mut is_new = false;
        let state = self.entries.entry(*owner).or_insert_with(|| {
            is_new = true;
            InMemoryState::default()
        });
        if !is_new {
            // Another request of this address has created it in the meantime.
            self.release(1);
        }
        state.measure_and_replace(&NotKeyed::NonKey, decide)
    }
}

impl ShrinkableKeyedStateStore<Owner> for AddressStore {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut removed = 0;
        self.entries.retain(|owner, state| {
            // A refusal leaves the state unchanged and returns it.
            let held = state.measure_and_replace(&NotKeyed::NonKey, Err::<((), Nanos), _>);
            let is_recent = held.err().flatten().is_some_and(|arrival| arrival > drop_below);
            if !is_recent && !matches!(owner, Owner::Shared(_)) {
                removed += 1;
            }
            is_recent
        });
        self.release(removed);
    }

    fn shrink_to_fit(&self) {
        self.entries.shrink_to_fit();
    }

    /// The number of entries, without the shared ones.
    fn len(&self) -> usize {
        self.own_count.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
