//! `status`: SQ's four lines about a phext.

use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::outcome::{CommandError, Outcome};
use crate::store::{Pending, Store};

#[derive(Debug)]
pub struct Status {
    phext: PhextName,
    connection_id: u64,
}

impl Status {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: input.phext_name()?, connection_id: input.connection_id })
    }

    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, CommandError> {
        let phext = store.read(&self.phext)?;
        Ok(phext.map(|phext| {
            Outcome::text(format!(
                "Hosting: {}\nConnection ID: {}\nPhext Size: {}\nScrolls: {}",
                self.phext,
                self.connection_id,
                phext.file_bytes(),
                phext.scroll_count()
            ))
        }))
    }
}
