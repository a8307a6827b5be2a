//! Memory for large answers. Answers from the same state of a phext share one reservation, so that slow readers of one
//! phext do not wait for each other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use sq_shared::problem::Problem;

use crate::api::outcome::{Pinned, PinnedPart};
use crate::server::memory_budget::{MemoryBudget, Reservation};

/// What all large answers in flight may pin together, in KiB: four scrolls of the default body limit. Without a limit,
/// each of a tenant's clients could pin a different state of a phext and read it slowly.
const BUDGET_KIB: u32 = 256 * 1024;

/// The budget of all answers.
#[derive(Debug)]
pub(super) struct AnswerBudget {
    budget: MemoryBudget,
    /// The reservations that answers in flight hold.
    shared: RefCell<HashMap<PinnedPart, Weak<Reservation>>>,
}

impl AnswerBudget {
    pub(super) fn new() -> Self {
        let advice = "other large answers are being sent: try again, or ask for less at once";
        Self { budget: MemoryBudget::new(BUDGET_KIB, advice), shared: RefCell::default() }
    }

    /// Reserves what an answer pins, and waits until it is free. Freed with the last answer that shares it.
    pub(super) async fn reserve(&self, pinned: &Pinned) -> Result<Arc<Reservation>, Problem> {
        let existing = || self.shared.borrow().get(&pinned.part?)?.upgrade();
        if let Some(reservation) = existing() {
            return Ok(reservation);
        }
        let reservation = Arc::new(self.budget.reserve(pinned.bytes).await?);
        if let Some(part) = pinned.part
            && !reservation.is_empty()
        {
            let mut shared = self.shared.borrow_mut();
            shared.retain(|_, reservation| reservation.strong_count() > 0);
            shared.insert(part, Arc::downgrade(&reservation));
        }
        Ok(reservation)
    }

    #[cfg(test)]
    pub(super) fn reserved_kib(&self) -> usize {
        self.budget.reserved_kib()
    }
}

#[cfg(test)]
mod tests {
    use sq_shared::coordinate::Coordinate;

    use super::*;
    use crate::store::Phext;

    #[tokio::test]
    async fn readers_of_one_state_share_a_reservation() {
        let budget = AnswerBudget::new();
        let revision = |text: &str| Phext::parse(text.as_bytes()).unwrap().revision();
        let bytes = u64::from(BUDGET_KIB) * 1024 / 2;
        let whole = Pinned { bytes, part: Some((revision("one"), None)) };
        let scroll =
            Pinned { bytes, part: whole.part.map(|(revision, _)| (revision, Some(Coordinate::ORIGIN))) };
        let readers = [budget.reserve(&whole).await.unwrap(), budget.reserve(&whole).await.unwrap()];
        assert_eq!(budget.reserved_kib(), BUDGET_KIB as usize / 2);
        let other = budget.reserve(&scroll).await.unwrap();
        assert_eq!(budget.reserved_kib(), BUDGET_KIB as usize);
        drop(other);
        let [first, second] = readers;
        drop(first);
        assert_eq!(budget.reserved_kib(), BUDGET_KIB as usize / 2, "the other reader still holds it");
        drop(second);
        assert_eq!(budget.reserved_kib(), 0);
        budget.reserve(&Pinned { bytes: u64::MAX, part: Some((revision("other"), None)) }).await.unwrap();
    }
}
