//! `insert`: appends a text to a scroll.

use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::{Failure, Outcome, coordinate, phext_name};
use crate::store::{Edit, Store};

/// Brings a text for a scroll.
#[derive(Debug)]
pub struct Insert {
    phext: PhextName,
    at: Coordinate,
    text: String,
}

impl Insert {
    pub(super) fn parse(input: Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: phext_name(&input)?, at: coordinate(&input)?, text: input.into_scroll()? })
    }

    pub(super) fn apply(self, store: &mut Store) -> Result<Outcome, Failure> {
        let answer = format!("Inserted {} bytes", self.text.len());
        store.write(&self.phext, self.at, Edit::Append(self.text))?;
        Ok(Outcome::text(answer))
    }
}
