//! `toc`: a line a scroll, with its coordinate and the first line of its text.

use std::fmt::Write;

use libphext::phext;
use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;

use crate::api::input::Input;
use crate::api::{Failure, Outcome, ROW_BYTES, phext_name};
use crate::store::Store;

/// Asks for the table of contents.
#[derive(Debug)]
pub struct Toc {
    phext: PhextName,
}

impl Toc {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: phext_name(input)? })
    }

    pub(super) fn answer_bytes(&self, store: &mut Store) -> Result<u64, Failure> {
        // The first line of a scroll may be all of it.
        let phext = store.read(&self.phext)?;
        Ok(phext.text_bytes() + ROW_BYTES * phext.scroll_count() as u64)
    }

    pub(super) fn apply(self, store: &mut Store) -> Result<Outcome, Failure> {
        let phext = store.read(&self.phext)?;
        let mut lines = String::new();
        for (at, text) in phext.iter() {
            push_line(&mut lines, at, text);
        }
        if lines.is_empty() {
            // SQ counts nothing at all as an empty scroll at the origin.
            push_line(&mut lines, &Coordinate::ORIGIN, "");
        }
        Ok(Outcome::text(lines))
    }
}

fn push_line(lines: &mut String, at: &Coordinate, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(lines, "* {at}: {}", phext::create_summary(text));
}
