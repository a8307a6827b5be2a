//! `select`: the text of a scroll, empty when there is none.

use libphext::phext;
use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::{Failure, Outcome, coordinate, phext_name};
use crate::store::Store;

/// Asks for a scroll.
#[derive(Debug)]
pub struct Select {
    phext: PhextName,
    at: Coordinate,
}

impl Select {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: phext_name(input)?, at: coordinate(input)? })
    }

    pub(super) fn answer_bytes(&self, store: &mut Store) -> Result<u64, Failure> {
        Ok(store.read(&self.phext)?.scroll(&self.at).len() as u64)
    }

    pub(super) fn apply(self, store: &mut Store) -> Result<Outcome, Failure> {
        let text = store.read(&self.phext)?.scroll(&self.at);
        Ok(Outcome::Scroll { checksum: phext::checksum(text), text: text.to_owned().into() })
    }
}
