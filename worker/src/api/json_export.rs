//! `json-export`: every scroll as JSON, in coordinate order.

use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::outcome::{CommandError, Outcome, Pinned};
use crate::api::stream::{JsonRows, Stream};
use crate::store::{Pending, Store};

#[derive(Debug)]
pub struct JsonExport {
    phext: PhextName,
}

impl JsonExport {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: input.phext_name()? })
    }

    pub(super) fn pinned(&self, store: &mut Store) -> Result<Pinned, CommandError> {
        Ok(Pinned::phext(store.peek(&self.phext)?))
    }

    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, CommandError> {
        let phext = store.read(&self.phext)?;
        Ok(phext.map(|phext| Outcome::Json(Stream::new(JsonRows::new(phext.cursor(..), "coord"), None))))
    }
}
