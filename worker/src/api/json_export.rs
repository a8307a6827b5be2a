//! `json-export`: every scroll as JSON, in coordinate order.

use serde::Serialize;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::{Failure, Outcome, json_bytes, phext_name};
use crate::store::Store;

/// Asks for a phext as JSON.
#[derive(Debug)]
pub struct JsonExport {
    phext: PhextName,
}

impl JsonExport {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: phext_name(input)? })
    }

    pub(super) fn answer_bytes(&self, store: &mut Store) -> Result<u64, Failure> {
        let phext = store.read(&self.phext)?;
        Ok(json_bytes(phext.scroll_count(), phext.text_bytes()))
    }

    pub(super) fn apply(self, store: &mut Store) -> Result<Outcome, Failure> {
        let scrolls = store.read(&self.phext)?.iter();
        let rows: Vec<Row<'_>> = scrolls.map(|(at, scroll)| Row { coord: at.to_string(), scroll }).collect();
        Outcome::json(&rows)
    }
}

#[derive(Serialize)]
struct Row<'a> {
    coord: String,
    scroll: &'a str,
}
