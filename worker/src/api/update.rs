//! `update`: puts a text in place of a scroll's; an empty one empties it.

use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::{Failure, Outcome, coordinate, phext_name};
use crate::store::{Edit, Store};

/// Brings a text for a scroll.
#[derive(Debug)]
pub struct Update {
    phext: PhextName,
    at: Coordinate,
    text: String,
}

impl Update {
    pub(super) fn parse(input: Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: phext_name(&input)?, at: coordinate(&input)?, text: input.into_scroll()? })
    }

    pub(super) fn apply(self, store: &mut Store) -> Result<Outcome, Failure> {
        let answer = format!("Updated {} bytes", self.text.len());
        store.write(&self.phext, self.at, Edit::Replace(self.text))?;
        Ok(Outcome::text(answer))
    }
}
