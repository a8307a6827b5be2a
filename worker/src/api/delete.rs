//! `delete`: empties a scroll.

use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::{Failure, Outcome, coordinate, phext_name};
use crate::store::{Edit, Store};

/// Names the scroll to empty.
#[derive(Debug)]
pub struct Delete {
    phext: PhextName,
    at: Coordinate,
}

impl Delete {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: phext_name(input)?, at: coordinate(input)? })
    }

    pub(super) fn apply(self, store: &mut Store) -> Result<Outcome, Failure> {
        let removed = store.write(&self.phext, self.at, Edit::Remove)?;
        Ok(Outcome::text(format!("Removed {removed} bytes")))
    }
}
