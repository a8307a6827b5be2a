//! The rows of `phexts`: the tenant's phexts, with the size and the number of scrolls of each.

use serde::Serialize;

use crate::store::Listed;

/// Writes the rows of the list as a JSON array.
#[derive(Debug)]
pub(crate) struct PhextRows {
    /// The byte before the next row.
    separator: u8,
}

#[derive(Serialize)]
struct Row<'a> {
    phext: &'a str,
    bytes: u64,
    /// `null` when the file is damaged or cannot be read.
    scrolls: Option<usize>,
}

impl PhextRows {
    pub(crate) fn add(&mut self, rows: &[Listed], json: &mut Vec<u8>) {
        for Listed { name, bytes, scrolls } in rows {
            json.push(self.separator);
            self.separator = b',';
            // Never fails: a row always serialises, and the writer is in memory.
            let row = Row { phext: name.as_str(), bytes: *bytes, scrolls: *scrolls };
            let _ = serde_json::to_writer(&mut *json, &row);
        }
    }

    pub(crate) fn end(&mut self, json: &mut Vec<u8>) {
        json.extend_from_slice(if self.separator == b'[' { b"[]" } else { b"]" });
    }
}

impl Default for PhextRows {
    fn default() -> Self {
        Self { separator: b'[' }
    }
}
