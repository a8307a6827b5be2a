//! Builds pages from scrolls in coordinate order, each text in any number of pieces.

use sq_shared::coordinate::Coordinate;

use crate::store::phext::page::{ENTRY_BYTES, Entry, PAGE_BYTES, Page, grow};

/// Builds pages without excess memory.
#[derive(Debug)]
pub(super) struct PageBuilder {
    text: String,
    entries: Vec<Entry>,
    limit_bytes: usize,
}

impl PageBuilder {
    /// Pages with more than one scroll get up to this many bytes, entries included.
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { text: String::new(), entries: Vec::new(), limit_bytes }
    }

    /// Begins the next scroll, which must get some text. Gives the page before it, if that is full.
    pub(super) fn begin(&mut self, at: Coordinate) -> Option<Page> {
        let full = if self.used_bytes() + ENTRY_BYTES > self.limit_bytes { self.finish() } else { None };
        self.entries.push(Entry::new(at, self.text.len()));
        full
    }

    /// Adds text to the scroll. Gives the page of the scrolls before it, if the text does not fit beside them.
    pub(super) fn push(&mut self, text: &str) -> Option<Page> {
        let mut full = None;
        if self.used_bytes() + text.len() > self.limit_bytes
            && let Some((last, others @ [_, ..])) = self.entries.split_last()
        {
            let last_at = last.at;
            let finished = self.text.get(..last.start()).unwrap_or_default().to_owned();
            self.text.drain(..last.start());
            full = Some(Page::new(finished, others.to_vec()));
            self.entries.clear();
            self.entries.push(Entry::new(last_at, 0));
        }
        if self.text.capacity() == 0 {
            self.text.reserve_exact(self.limit_bytes);
        }
        grow(&mut self.text, text.len());
        self.text.push_str(text);
        full
    }

    /// The last page, if it has a scroll. The builder can be used again.
    pub(super) fn finish(&mut self) -> Option<Page> {
        if self.entries.is_empty() {
            return None;
        }
        let text = if self.text.len() > PAGE_BYTES {
            let mut text = std::mem::take(&mut self.text);
            text.shrink_to_fit();
            text
        } else {
            self.text.as_str().to_owned()
        };
        let entries = self.entries.as_slice().to_owned();
        self.text.clear();
        self.entries.clear();
        Some(Page::new(text, entries))
    }

    fn used_bytes(&self) -> usize {
        self.text.len() + self.entries.len() * ENTRY_BYTES
    }
}
