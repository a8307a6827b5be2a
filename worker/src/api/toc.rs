//! `toc`: a line a scroll, with its coordinate and the first line of its text.

use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::stream::Lines;
use crate::api::{Failure, Outcome, Pinned, phext_name};
use crate::store::{Pending, Store};

/// Asks for the table of contents.
#[derive(Debug)]
pub struct Toc {
    phext: PhextName,
}

impl Toc {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: phext_name(input)? })
    }

    pub(super) fn pinned(&self, store: &mut Store) -> Result<Pinned, Failure> {
        // The first line of a scroll may be all of it.
        Ok(Pinned::phext(store.glance(&self.phext)?))
    }

    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, Failure> {
        Ok(store.read(&self.phext)?.map(|phext| Outcome::text_of(Lines::new(phext.cursor(..)), None)))
    }
}
