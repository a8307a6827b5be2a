//! What the client addresses have used of a rate, in bounded memory. governor's own store has a place for every
//! address that ever comes, and an attacker with a /32 of IPv6 has four billion /64s to come from.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::nanos::Nanos;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};
use governor::state::{InMemoryState, NotKeyed, StateStore};

/// Most addresses with a place of their own: more than the customers of one host have in the minute that a place
/// is needed. A place takes 25 bytes, in tables that are half to seven eighths full: 3 to 5 MB when all are taken.
pub(super) const OWN_PLACES: usize = 100_000;

/// Places that newcomers share while there is none of their own left. Together they let this many times the rate
/// through: an attack that fills the store is slowed to that, and an honest newcomer is at worst refused with it.
pub(super) const SHARED_PLACES: u64 = 1024;

/// Parts of the store that are locked by themselves. A sweep holds up who needs the part that it is at, for as
/// long as it looks at some 1,600 places.
const SHARDS: usize = 64;

/// Who has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// An IPv4 address.
    V4(u32),
    /// The /64 that one IPv6 customer has.
    V6(u64),
    /// Whoever came when all places were taken, and has this number by lot.
    Shared(u64),
}

impl From<IpAddr> for Place {
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

/// A place for each address, up to [`OWN_PLACES`]; whoever comes then has one of [`SHARED_PLACES`]. An address
/// that has a place keeps it, with its own count, until that count is full again and a sweep takes the place back.
pub(super) struct AddressStore {
    places: DashMapStateStore<Place>,
    /// How many of them are not shared. (The map would have to lock all its parts to say so.)
    taken: AtomicUsize,
    /// Draws the lots. It is keyed by random numbers of the system: nobody can choose an address that shares a
    /// place with a victim's.
    lots: RandomState,
}

impl AddressStore {
    pub(super) fn new() -> Self {
        Self {
            places: DashMapStateStore::with_hasher_and_shard_amount(RandomState::new(), SHARDS),
            taken: AtomicUsize::new(0),
            lots: RandomState::new(),
        }
    }

    /// Takes one of the places that are left.
    fn take(&self) -> bool {
        let one_more = |taken| (taken < OWN_PLACES).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn give_back(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::Relaxed);
    }
}

impl StateStore for AddressStore {
    type Key = Place;

    fn measure_and_replace<T, F, E>(&self, place: &Place, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(state) = self.places.get(place) {
            return state.measure_and_replace(&NotKeyed::NonKey, decide);
        }
        if !self.take() {
            let shared = Place::Shared(self.lots.hash_one(place) % SHARED_PLACES);
            return self.places.measure_and_replace(&shared, decide);
        }
        let mut is_new = false;
        let state = self.places.entry(*place).or_insert_with(|| {
            is_new = true;
            InMemoryState::default()
        });
        if !is_new {
            // Another request of this address was quicker, and has taken the place.
            self.give_back(1);
        }
        state.measure_and_replace(&NotKeyed::NonKey, decide)
    }
}

impl ShrinkableKeyedStateStore<Place> for AddressStore {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut left = 0;
        self.places.retain(|place, state| {
            // What is refused changes nothing, and brings out what the state holds.
            let held = state.measure_and_replace(&NotKeyed::NonKey, Err::<((), Nanos), _>);
            let is_recent = held.err().flatten().is_some_and(|arrival| arrival > drop_below);
            if !is_recent && !matches!(place, Place::Shared(_)) {
                left += 1;
            }
            is_recent
        });
        self.give_back(left);
    }

    fn shrink_to_fit(&self) {
        self.places.shrink_to_fit();
    }

    /// How many places are taken, without the shared ones.
    fn len(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
