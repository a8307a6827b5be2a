//! Which operations of the simulated disk fail, and when.

use std::io;

use rustix::io::Errno;

use sq_tests::random::Random;

/// What can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Operation {
    /// Of a name, or of an open file.
    Identity,
    Open,
    Create,
    Rename,
    Remove,
    SyncDirectory,
    List,
    Read,
    Write,
    SetBytes,
    Allocate,
    SyncData,
    SyncAll,
}

impl Operation {
    /// Whether it changes anything.
    fn is_change(self) -> bool {
        !matches!(self, Self::Identity | Self::Open | Self::List | Self::Read)
    }
}

/// The error of every operation of a process that is gone.
#[derive(Debug, thiserror::Error)]
#[error("the simulated process is gone")]
struct Stopped;

/// Whether an error comes from [`SimDisk::stop_after`](super::SimDisk::stop_after).
pub(in crate::store) fn is_stopped(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Stopped>())
}

#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    scheduled: Vec<Scheduled>,
    /// One in so many operations fails by chance; `None` is never.
    pub(super) one_in: Option<usize>,
    /// How many changes there have been, failed ones as well.
    pub(super) changes: u64,
    /// After how many changes the process is gone.
    pub(super) stop_at: Option<u64>,
    pub(super) is_stopped: bool,
}

#[derive(Debug, Clone)]
struct Scheduled {
    operation: Operation,
    /// How many of these succeed first.
    still_fine: u64,
    error: Errno,
}

impl Faults {
    pub(super) fn schedule(&mut self, operation: Operation, nth: u64, error: Errno) {
        self.scheduled.push(Scheduled { operation, still_fine: nth - 1, error });
    }

    /// Must be called once before each operation. Gives the error that it fails with.
    pub(super) fn inject(&mut self, operation: Operation, random: &mut Random) -> io::Result<()> {
        if operation.is_change() && self.stop_at.is_some_and(|stop_at| self.changes >= stop_at) {
            self.is_stopped = true;
        }
        if self.is_stopped {
            return Err(io::Error::other(Stopped));
        }
        if operation.is_change() {
            self.changes += 1;
        }
        match self.due(operation).or_else(|| self.by_chance(operation, random)) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    fn due(&mut self, operation: Operation) -> Option<Errno> {
        let mut due = None;
        self.scheduled.retain_mut(|fault| {
            if fault.operation != operation {
                return true;
            }
            if fault.still_fine == 0 {
                due = Some(fault.error);
                return false;
            }
            fault.still_fine -= 1;
            true
        });
        due
    }

    fn by_chance(&self, operation: Operation, random: &mut Random) -> Option<Errno> {
        if !random.one_in(self.one_in?) {
            return None;
        }
        let takes_space = operation.is_change() && operation != Operation::Remove;
        Some(if takes_space && random.one_in(2) { Errno::NOSPC } else { Errno::IO })
    }
}
