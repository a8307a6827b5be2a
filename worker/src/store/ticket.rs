//! What was read or written, and what must be on disk before anybody may be told.
//!
//! A write is applied in memory as soon as it is checked, and durable only when the journal has been synced. The writer
//! waits for that; a reader gets the last durable state. So nothing is ever answered that a power cut could take back.

use sq_shared::phext_name::PhextName;

use crate::store::queue::Fate;

/// A value that may be told once everything it rests on is durable.
#[must_use = "the value is not durable until its tickets are settled"]
#[derive(Debug)]
pub struct Pending<T> {
    pub(super) value: T,
    pub(super) tickets: Vec<Ticket>,
}

/// A state of a phext that must become durable.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub(super) name: PhextName,
    /// Which time that the phext is in memory: what it was before was durable when it was read anew.
    pub(super) visit: u64,
    /// The last record that counts.
    pub(super) logged: u64,
    /// The last edit that counts.
    pub(super) edit: u64,
    /// Whether the disk refused the last record.
    pub(super) fate: Fate,
}

impl<T> Pending<T> {
    /// A value that rests on nothing.
    pub fn settled(value: T) -> Self {
        Self { value, tickets: Vec::new() }
    }

    /// A value that rests on these.
    pub fn new(value: T, tickets: Vec<Ticket>) -> Self {
        Self { value, tickets }
    }

    /// The value as something else, with the same tickets.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Pending<U> {
        Pending { value: change(self.value), tickets: self.tickets }
    }

    /// The value, to decide by: nobody is told of it.
    pub fn into_untold(self) -> T {
        self.value
    }

    /// Parts the value from what must be settled before it is told.
    pub fn into_parts(self) -> (T, Vec<Ticket>) {
        (self.value, self.tickets)
    }
}
