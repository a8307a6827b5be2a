//! `load`: makes sure that the phext is as its file is now, whoever wrote that.

use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::{Failure, Outcome, phext_name};
use crate::store::{Pending, Store};

/// Names the phext to read again.
#[derive(Debug)]
pub struct Load {
    phext: PhextName,
}

impl Load {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: phext_name(input)? })
    }

    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, Failure> {
        let phext = store.load(&self.phext)?;
        Ok(phext.map(|_| Outcome::text(format!("Loaded {}.phext", self.phext))))
    }
}
