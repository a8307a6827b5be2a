//! Joins scrolls to the bytes of a phext, a buffer at a time.

use sq_shared::coordinate::Coordinate;

use crate::store::breaks::Steps;
use crate::store::phext::scroll::{Fragments, Scroll};

/// Writes a phext from scrolls in coordinate order.
#[derive(Debug)]
pub struct Joined<S> {
    scrolls: S,
    steps: Steps,
    /// The scroll that is being written.
    fragments: Option<Fragments>,
    here: Coordinate,
}

impl<S: Iterator<Item = (Coordinate, Scroll)>> Joined<S> {
    /// Begins at the origin.
    pub fn new(scrolls: S) -> Self {
        Self { scrolls, steps: Steps::default(), fragments: None, here: Coordinate::ORIGIN }
    }

    /// Adds bytes to a buffer until it has about `limit` (it may be exceeded by a fragment of a scroll). Gives whether
    /// there may be more.
    pub fn fill(&mut self, buffer: &mut Vec<u8>, limit: usize) -> bool {
        while buffer.len() < limit {
            if !self.steps.write(buffer, limit) {
                return true;
            }
            if let Some(text) = self.fragments.as_mut().and_then(Fragments::next_fragment) {
                buffer.extend_from_slice(text.as_bytes());
                continue;
            }
            let Some((at, scroll)) = self.scrolls.next() else { return false };
            self.steps = Steps::between(&self.here, &at);
            self.here = at;
            self.fragments = Some(scroll.fragments());
        }
        true
    }
}
