//! Memory for large answers. Those that keep the same state of a phext need their room only once: slow readers
//! of one phext do not wait for each other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use sq_shared::problem::Problem;

use crate::api::{Pinned, PinnedPart};
use crate::server::room::{Room, Share};

/// What all large answers that are being written may keep together, in KiB: four scrolls of the longest body
/// by default. Without it, as many clients as may be in flight could each keep another state of a phext, and
/// read it slowly.
const ROOM_KIB: u32 = 256 * 1024;

/// The room of all answers.
#[derive(Debug)]
pub(super) struct AnswerRoom {
    room: Room,
    /// What is being read, and by whom it is kept.
    shares: RefCell<HashMap<PinnedPart, Weak<Share>>>,
}

impl AnswerRoom {
    pub(super) fn new() -> Self {
        let advice = "other large answers are being sent: try again, or ask for less at once";
        Self { room: Room::new(ROOM_KIB, advice), shares: RefCell::default() }
    }

    /// Room for what an answer keeps, once there is some. It is given back with the last reader.
    pub(super) async fn take(&self, pinned: &Pinned) -> Result<Arc<Share>, Problem> {
        let shared = || self.shares.borrow().get(&pinned.part?)?.upgrade();
        if let Some(share) = shared() {
            return Ok(share);
        }
        let share = Arc::new(self.room.take(pinned.bytes).await?);
        if let Some(part) = pinned.part
            && !share.is_empty()
        {
            let mut shares = self.shares.borrow_mut();
            shares.retain(|_, share| share.strong_count() > 0);
            shares.insert(part, Arc::downgrade(&share));
        }
        Ok(share)
    }

    #[cfg(test)]
    pub(super) fn taken_kib(&self) -> usize {
        self.room.taken_kib()
    }
}

#[cfg(test)]
mod tests {
    use sq_shared::coordinate::Coordinate;

    use super::*;
    use crate::store::Phext;

    #[tokio::test]
    async fn readers_of_one_state_need_its_room_once() {
        let room = AnswerRoom::new();
        let state = |text: &str| Phext::parse(text.as_bytes()).unwrap().state();
        let bytes = u64::from(ROOM_KIB) * 1024 / 2;
        let whole = Pinned { bytes, part: Some((state("one"), None)) };
        let scroll = Pinned { bytes, part: whole.part.map(|(state, _)| (state, Some(Coordinate::ORIGIN))) };
        let readers = [room.take(&whole).await.unwrap(), room.take(&whole).await.unwrap()];
        assert_eq!(room.taken_kib(), ROOM_KIB as usize / 2);
        let other = room.take(&scroll).await.unwrap();
        assert_eq!(room.taken_kib(), ROOM_KIB as usize);
        drop(other);
        let [first, second] = readers;
        drop(first);
        assert_eq!(room.taken_kib(), ROOM_KIB as usize / 2, "the other one still reads");
        drop(second);
        assert_eq!(room.taken_kib(), 0);
        room.take(&Pinned { bytes: u64::MAX, part: Some((state("other"), None)) }).await.unwrap();
    }
}
