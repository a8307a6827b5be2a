//! `phexts`: which phexts there are, how large, and with how many scrolls.

use serde::Serialize;

use crate::api::{Outcome, Pinned};
use crate::store::{Listed, Listing, Store};

/// Asks for the list.
#[derive(Debug)]
pub struct Phexts;

/// The rows of the list as JSON, as they come.
#[derive(Debug)]
pub struct PhextRows {
    /// What goes before the next row.
    separator: u8,
}

#[derive(Serialize)]
struct Row<'a> {
    phext: &'a str,
    bytes: u64,
    /// `null` when the file is damaged or cannot be read.
    scrolls: Option<usize>,
}

impl Phexts {
    pub(super) fn pinned(store: &Store) -> Pinned {
        Pinned { bytes: store.listing_bytes(), part: None }
    }

    pub(super) fn apply() -> Outcome {
        Outcome::Listing(Listing::default())
    }
}

impl PhextRows {
    /// Adds rows.
    pub fn add(&mut self, rows: &[Listed], json: &mut Vec<u8>) {
        for Listed { name, bytes, scrolls } in rows {
            json.push(self.separator);
            self.separator = b',';
            // A row can always be written as JSON, and to a buffer in memory.
            let row = Row { phext: name.as_str(), bytes: *bytes, scrolls: *scrolls };
            let _ = serde_json::to_writer(&mut *json, &row);
        }
    }

    /// Ends the list.
    pub fn end(&mut self, json: &mut Vec<u8>) {
        json.extend_from_slice(if self.separator == b'[' { b"[]" } else { b"]" });
    }
}

impl Default for PhextRows {
    fn default() -> Self {
        Self { separator: b'[' }
    }
}
