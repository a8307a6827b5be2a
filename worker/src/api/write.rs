//! `insert`, `update` and `delete`: append to a scroll, replace its text, empty it.

use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;
use xxhash_rust::xxh3::xxh3_128;

use crate::api::input::Input;
use crate::api::outcome::{CommandError, Outcome};
use crate::store::{Edit, Pending, Store, Write, WriteReceipt};

/// A change of one scroll.
#[derive(Debug)]
pub(crate) struct WriteScroll {
    phext: PhextName,
    write: Write,
    /// The first word of the answer.
    done: &'static str,
}

impl WriteScroll {
    pub(super) fn insert(input: Input<'_>) -> Result<Self, Problem> {
        Self::parse(input, "Inserted", |input| Ok(Edit::Append(input.into_scroll()?)))
    }

    pub(super) fn update(input: Input<'_>) -> Result<Self, Problem> {
        Self::parse(input, "Updated", |input| Ok(Edit::Replace(input.into_scroll()?)))
    }

    pub(super) fn delete(input: Input<'_>) -> Result<Self, Problem> {
        Self::parse(input, "Removed", |_| Ok(Edit::Remove))
    }

    fn parse<'a>(
        mut input: Input<'a>,
        done: &'static str,
        edit: impl FnOnce(Input<'a>) -> Result<Edit, Problem>,
    ) -> Result<Self, Problem> {
        let (phext, at) = (input.phext_name()?, input.coordinate()?);
        let (expected, key) = (input.expected.take(), input.repeat.take());
        Ok(Self { phext, write: Write { at, edit: edit(input)?, expected, key }, done })
    }

    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, CommandError> {
        let written = store.write(&self.phext, &self.write)?;
        let scroll = store.latest_scroll(&self.phext, &self.write.at);
        Ok(written.map(|WriteReceipt { bytes, is_replay }| {
            let checksum = (!is_replay).then(|| xxh3_128(scroll.as_bytes()));
            let text = format!("{} {bytes} bytes", self.done).into();
            Outcome::Written { text, bytes, is_replay, checksum }
        }))
    }

    /// The durable scroll's checksum; `None` if the phext can't be read now.
    pub(super) fn current_checksum(&self, store: &mut Store) -> Option<u128> {
        let phext = store.read(&self.phext).ok()?.into_parts().0;
        Some(xxh3_128(phext.scroll(&self.write.at).as_bytes()))
    }
}
