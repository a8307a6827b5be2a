//! `phexts`: which phexts there are, how large, and with how many scrolls.

use serde::Serialize;

use crate::api::{Failure, Outcome};
use crate::store::{Pending, Store};

/// Asks for the list.
#[derive(Debug)]
pub struct Phexts;

#[derive(Serialize)]
struct Row<'a> {
    phext: &'a str,
    bytes: u64,
    /// `null` when the file is damaged.
    scrolls: Option<usize>,
}

impl Phexts {
    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, Failure> {
        let (listed, tickets) = store.list()?.into_parts();
        let rows: Vec<Row<'_>> = listed
            .iter()
            .map(|phext| Row { phext: phext.name.as_str(), bytes: phext.bytes, scrolls: phext.scrolls })
            .collect();
        Ok(Pending::new(Outcome::json(&rows)?, tickets))
    }
}
