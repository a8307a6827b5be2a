//! `checksum`: 32 hexadecimal digits that stand for the whole phext.

use libphext::phext;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::{Failure, Outcome, phext_name};
use crate::store::Store;

/// Asks for a phext's checksum.
#[derive(Debug)]
pub struct Checksum {
    phext: PhextName,
}

impl Checksum {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: phext_name(input)? })
    }

    pub(super) fn apply(self, store: &mut Store) -> Result<Outcome, Failure> {
        Ok(Outcome::text(phext::checksum(&store.read(&self.phext)?.join())))
    }
}
