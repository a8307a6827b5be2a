//! `select`: the text of a scroll; empty if there is none.

use bytes::Bytes;
use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;
use xxhash_rust::xxh3::xxh3_128;

use crate::api::input::Input;
use crate::api::outcome::{CommandError, Outcome, Pinned};
use crate::store::{Pending, Store};

#[derive(Debug)]
pub(crate) struct Select {
    phext: PhextName,
    at: Coordinate,
}

impl Select {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: input.phext_name()?, at: input.coordinate()? })
    }

    pub(super) fn pinned(&self, store: &mut Store) -> Result<Pinned, CommandError> {
        let phext = store.peek(&self.phext)?;
        let bytes = phext.scroll(&self.at).len() as u64;
        Ok(Pinned { bytes, part: Some((phext.revision(), Some(self.at))) })
    }

    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, CommandError> {
        let scroll = store.read(&self.phext)?.map(|phext| phext.scroll_handle(&self.at));
        Ok(scroll.map(|scroll| Outcome::Scroll {
            checksum: xxh3_128(scroll.as_str().as_bytes()),
            text: Bytes::from_owner(scroll),
        }))
    }
}
