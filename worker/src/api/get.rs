//! `get`: the whole phext, breaks and all.

use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::{Failure, Outcome, phext_name};
use crate::store::Store;

/// Asks for a phext.
#[derive(Debug)]
pub struct Get {
    phext: PhextName,
}

impl Get {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: phext_name(input)? })
    }

    pub(super) fn answer_bytes(&self, store: &mut Store) -> Result<u64, Failure> {
        Ok(store.read(&self.phext)?.file_bytes())
    }

    pub(super) fn apply(self, store: &mut Store) -> Result<Outcome, Failure> {
        Ok(Outcome::text(store.read(&self.phext)?.join()))
    }
}
