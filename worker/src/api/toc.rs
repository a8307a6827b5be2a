//! `toc`: one line per scroll, with its coordinate and the first line of its text.

use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::outcome::{CommandError, Outcome, Pinned};
use crate::api::stream::{Lines, Stream};
use crate::store::{Pending, Store};

#[derive(Debug)]
pub struct Toc {
    phext: PhextName,
}

impl Toc {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: input.phext_name()? })
    }

    pub(super) fn pinned(&self, store: &mut Store) -> Result<Pinned, CommandError> {
        // The first line of a scroll may be all of it.
        Ok(Pinned::phext(store.peek(&self.phext)?))
    }

    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, CommandError> {
        let phext = store.read(&self.phext)?;
        Ok(phext.map(|phext| Outcome::TextStream(Stream::new(Lines::new(phext.cursor(..)), None))))
    }
}
