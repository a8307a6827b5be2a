//! Memory that large things share, so that many of them at once cannot take all there is.

use std::sync::Arc;
use std::time::Duration;

use sq_shared::problem::{Code, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What needs no room of its own: as many as there may be connections take 32 MiB, and so a slow large one
/// never makes a small one wait. Room is also taken in steps of this.
const SMALL_KIB: u64 = 64;

/// How long to wait for room. Those who hold some and wait for more may wait for each other: then the
/// first one is refused after this time, and the others go on.
const WAIT: Duration = Duration::from_secs(10);

/// Room for one kind of thing.
#[derive(Debug)]
pub(super) struct Room {
    permits: Arc<Semaphore>,
    kib: u32,
    advice: &'static str,
}

/// A part of a room, given back when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Share(Option<OwnedSemaphorePermit>);

impl Room {
    /// `advice` is what a client reads that waited in vain.
    pub(super) fn new(kib: u32, advice: &'static str) -> Self {
        Self { permits: Arc::new(Semaphore::new(kib as usize)), kib, advice }
    }

    /// Room for so many bytes, once there is some. What is larger than all the room takes all of it.
    pub(super) async fn take(&self, bytes: u64) -> Result<Share, Problem> {
        let mut share = Share::default();
        self.grow(&mut share, bytes).await?;
        Ok(share)
    }

    /// Makes a share large enough for so many bytes; gives whether it was not yet.
    pub(super) async fn grow(&self, share: &mut Share, bytes: u64) -> Result<bool, Problem> {
        let missing = self.permits_for(bytes).saturating_sub(share.kib());
        if missing == 0 {
            return Ok(false);
        }
        match timeout(WAIT, Arc::clone(&self.permits).acquire_many_owned(missing)).await {
            Ok(Ok(more)) => {
                share.add(more);
                Ok(true)
            }
            // The semaphore is never closed: time is over.
            _ => Err(Problem::new(Code::WorkerUnavailable, self.advice).retry_after_s(WAIT.as_secs())),
        }
    }

    /// Whether a share is larger than so many bytes need.
    pub(super) fn holds_more_than(&self, share: &Share, bytes: u64) -> bool {
        share.kib() > self.permits_for(bytes)
    }

    /// Gives back what of a share so many bytes do not need.
    pub(super) fn shrink(&self, share: &mut Share, bytes: u64) {
        let surplus = share.kib().saturating_sub(self.permits_for(bytes));
        if let Some(permit) = &mut share.0 {
            drop(permit.split(surplus as usize));
        }
        share.0.take_if(|permit| permit.num_permits() == 0);
    }

    #[cfg(test)]
    pub(super) fn taken_kib(&self) -> usize {
        self.kib as usize - self.permits.available_permits()
    }

    fn permits_for(&self, bytes: u64) -> u32 {
        let kib = bytes.div_ceil(1024);
        if kib <= SMALL_KIB {
            return 0;
        }
        u32::try_from(kib.next_multiple_of(SMALL_KIB)).unwrap_or(self.kib).min(self.kib)
    }
}

impl Share {
    /// Whether it needs no room.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn kib(&self) -> u32 {
        self.0.as_ref().map_or(0, |permit| u32::try_from(permit.num_permits()).unwrap_or(u32::MAX))
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.0 {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM_KIB: u32 = 1024;

    #[test]
    fn small_things_need_no_room_and_the_largest_all_of_it() {
        let room = Room::new(ROOM_KIB, "");
        let kib = |bytes| room.permits_for(bytes);
        assert_eq!((kib(0), kib(64 * 1024), kib(64 * 1024 + 1)), (0, 0, 128));
        assert_eq!((kib(1024 * 1024), kib(1024 * 1024 + 1), kib(u64::MAX)), (ROOM_KIB, ROOM_KIB, ROOM_KIB));
    }

    #[tokio::test]
    async fn what_a_share_does_not_need_can_be_given_back() {
        let room = Room::new(ROOM_KIB, "");
        let mut share = room.take(512 * 1024).await.unwrap();
        assert!(room.holds_more_than(&share, 448 * 1024) && !room.holds_more_than(&share, 448 * 1024 + 1));
        room.shrink(&mut share, 100 * 1024);
        assert_eq!(room.taken_kib(), 128);
        room.shrink(&mut share, 64 * 1024);
        assert!(share.is_empty() && room.taken_kib() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_in_vain_is_told_so_and_what_is_dropped_is_free_again() {
        let room = Room::new(ROOM_KIB, "wait");
        let mut one = room.take(400 * 1024).await.unwrap();
        let mut other = room.take(400 * 1024).await.unwrap();
        room.take(1024).await.unwrap();
        // Each waits for what the other has: the first gives up, and the second gets it.
        let first = async {
            let refused = room.grow(&mut one, 900 * 1024).await.unwrap_err();
            drop(std::mem::take(&mut one));
            refused
        };
        let second = async {
            tokio::time::sleep(WAIT / 2).await;
            room.grow(&mut other, 900 * 1024).await.unwrap()
        };
        let (refused, grown) = tokio::join!(first, second);
        assert_eq!((refused.code, refused.retry_after_s, grown), (Code::WorkerUnavailable, Some(10), true));
        drop(other);
        room.take(u64::MAX).await.unwrap();
    }
}
