//! `load`: reads the phext's file again if another program has changed it.

use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::outcome::{CommandError, Outcome};
use crate::store::{Pending, Store};

#[derive(Debug)]
pub struct Load {
    phext: PhextName,
}

impl Load {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: input.phext_name()? })
    }

    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, CommandError> {
        let phext = store.load(&self.phext)?;
        Ok(phext.map(|_| Outcome::text(format!("Loaded {}.phext", self.phext))))
    }
}
