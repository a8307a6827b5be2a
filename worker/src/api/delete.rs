//! `delete`: empties a scroll.

use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::{Failure, Outcome, coordinate, phext_name, write};
use crate::store::{Edit, Pending, Store, Write};

/// Names the scroll to empty.
#[derive(Debug)]
pub struct Delete {
    phext: PhextName,
    write: Write,
}

impl Delete {
    pub(super) fn parse(mut input: Input<'_>) -> Result<Self, Problem> {
        let (phext, at) = (phext_name(&input)?, coordinate(&input)?);
        let (expected, repeat) = (input.expected.take(), input.repeat.take());
        let edit = Edit::Remove;
        Ok(Self { phext, write: Write { at, edit, expected, repeat } })
    }

    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, Failure> {
        write(store, &self.phext, &self.write, "Removed")
    }

    /// Which scroll it changes.
    pub(super) fn target(&self) -> (&PhextName, &Coordinate) {
        (&self.phext, &self.write.at)
    }
}
