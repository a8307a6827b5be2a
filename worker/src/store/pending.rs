//! Values that must not be answered before everything that they rest on is durable.
//!
//! A write is applied in memory as soon as it is checked, and durable later (`open_phext/durability.rs`). The writer waits
//! for that; a reader gets the last durable state. So no answer holds anything that a power cut could undo.

use sq_shared::phext_name::PhextName;

use crate::store::open_phext::durability::Position;
use crate::store::queue::SharedRefusal;

/// A value that may be answered once its commit points are durable.
#[must_use = "the value must not be answered before its commit points are durable"]
#[derive(Debug)]
pub struct Pending<T> {
    pub(super) value: T,
    pub(super) commit_points: Vec<CommitPoint>,
}

/// A position in the records of a phext that must be durable before a request is answered.
#[derive(Debug, Clone)]
pub struct CommitPoint {
    pub(super) name: PhextName,
    /// Which load of the phext.
    pub(super) load_id: u64,
    pub(super) position: Position,
    /// Whether the disk refused the last record.
    pub(super) refusal: SharedRefusal,
}

impl<T> Pending<T> {
    /// A value that rests on nothing that is not durable.
    pub fn durable(value: T) -> Self {
        Self { value, commit_points: Vec::new() }
    }

    /// A value that rests on these.
    pub fn new(value: T, commit_points: Vec<CommitPoint>) -> Self {
        Self { value, commit_points }
    }

    /// The value as something else, with the same commit points.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Pending<U> {
        Pending { value: change(self.value), commit_points: self.commit_points }
    }

    /// The value without waiting until it is durable: to decide by, not to answer with.
    pub fn into_inner_undurable(self) -> T {
        self.value
    }

    /// The value, and what must be durable before it is answered.
    pub fn into_parts(self) -> (T, Vec<CommitPoint>) {
        (self.value, self.commit_points)
    }
}
