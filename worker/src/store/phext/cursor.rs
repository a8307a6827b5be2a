//! Iterates over a snapshot of a phext: later changes are not seen.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use sq_shared::coordinate::Coordinate;

use crate::store::phext::page::Page;
use crate::store::phext::scroll::Scroll;
use crate::store::phext::{Phext, starts_before};

/// The scrolls of a range, each owning its text.
#[derive(Debug)]
pub struct Cursor {
    phext: Phext,
    /// The present page; `None` at the end.
    page: Option<Arc<Page>>,
    index: usize,
    end: Bound<Coordinate>,
}

impl Cursor {
    /// Begins before the first scroll of a range.
    pub fn new(phext: Phext, range: impl RangeBounds<Coordinate>) -> Self {
        let start = range.start_bound().cloned();
        let page = phext.pages_from(start).next().map(|(_, page)| Arc::clone(page));
        let index = page.as_ref().map_or(0, |page| page.index_of_start(start));
        Self { phext, page, index, end: range.end_bound().cloned() }
    }

    fn turn_page(&mut self) {
        let behind = self.page.as_ref().and_then(|page| page.first());
        let next = behind.and_then(|first| {
            self.phext.pages.range((Bound::Excluded(first), Bound::Unbounded)).next().map(|(_, page)| page)
        });
        self.page = next.map(Arc::clone);
        self.index = 0;
    }
}

impl Iterator for Cursor {
    type Item = (Coordinate, Scroll);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let page = self.page.as_ref()?;
            let Some((at, range)) = page.bounds(self.index) else {
                self.turn_page();
                continue;
            };
            if !starts_before(&at, &self.end) {
                self.page = None;
                return None;
            }
            self.index += 1;
            return Some((at, Scroll::from_page(Arc::clone(page), range)));
        }
    }
}
