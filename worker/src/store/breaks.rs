//! The nine breaks of a phext: cuts a text into scrolls, joins scrolls, and counts the breaks between two coordinates
//! before any is written.

use sq_shared::coordinate::Coordinate;

/// The breaks, the largest dimension (library) first, as in a coordinate.
const BREAKS: [u8; 9] = [0x01, 0x1f, 0x1e, 0x1d, 0x1c, 0x1a, 0x19, 0x18, 0x17];

/// How many bytes are searched for a break at once. Most have none, and the compiler vectorizes the comparison.
const SCAN_BYTES: usize = 32;

/// Which of the nine parts of a coordinate a byte advances; `None` for a byte of text.
pub(super) fn level_of(byte: u8) -> Option<usize> {
    // The smallest is by far the most common.
    BREAKS.iter().rposition(|known| *known == byte)
}

/// Whether a byte is a break. Branchless, so that it is vectorized.
fn is_break(byte: u8) -> bool {
    (byte == 0x01) | ((byte.wrapping_sub(0x17) < 9) & (byte != 0x1b))
}

/// The offset of the first break of a text. A line feed is not a break: it stays inside a scroll.
pub(crate) fn first_break(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let has_break = |chunk: &&[u8]| chunk.iter().fold(false, |found, byte| found | is_break(*byte));
    let clean = bytes.chunks_exact(SCAN_BYTES).take_while(|chunk| !has_break(chunk)).count() * SCAN_BYTES;
    let (_, rest) = bytes.split_at_checked(clean)?;
    rest.iter().position(|byte| is_break(*byte)).map(|position| clean + position)
}

/// The leading breaks of one kind: which part each of them advances, and how many there are. Hundreds of thousands may lead
/// to a scroll far away.
pub(super) fn leading_breaks(text: &str) -> Option<(usize, usize)> {
    let (first, bytes) = (*text.as_bytes().first()?, text.as_bytes());
    let level = level_of(first)?;
    Some((level, bytes.iter().take_while(|byte| **byte == first).count()))
}

/// Moves a coordinate across breaks of one kind: one part advances, and every smaller one restarts.
pub(super) fn cross(parts: &mut [u64; 9], level: usize, count: usize) {
    for (position, part) in parts.iter_mut().enumerate().skip(level) {
        *part = if position == level { part.saturating_add(count as u64) } else { 1 };
    }
}

/// How many breaks lead from one coordinate to a later one.
pub(crate) fn breaks_between(from: &Coordinate, to: &Coordinate) -> u64 {
    counts_between(from, to).iter().map(|count| u64::from(*count)).sum()
}

/// How many breaks of each dimension lead from one coordinate to a later one: the first part that differs advances, and
/// every smaller one restarts from 1.
fn counts_between(from: &Coordinate, to: &Coordinate) -> [u32; 9] {
    let mut counts = [0; 9];
    let mut restarted = false;
    for (count, (old, new)) in counts.iter_mut().zip(from.parts().iter().zip(to.parts())) {
        *count = new.saturating_sub(if restarted { 1 } else { *old });
        restarted |= old != new;
    }
    counts
}

/// The length of scrolls in coordinate order, joined.
pub(crate) fn joined_bytes(scrolls: impl Iterator<Item = (Coordinate, impl AsRef<[u8]>)>) -> u64 {
    let mut here = Coordinate::ORIGIN;
    let mut total = 0;
    for (at, text) in scrolls {
        total += breaks_between(&here, &at) + text.as_ref().len() as u64;
        here = at;
    }
    total
}

/// The breaks from one coordinate to a later one, written piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Steps([u32; 9]);

impl Steps {
    pub(crate) fn between(from: &Coordinate, to: &Coordinate) -> Self {
        Self(counts_between(from, to))
    }

    /// Adds breaks to a buffer until it has `limit` bytes. Gives whether all of them are written.
    pub(crate) fn write(&mut self, buffer: &mut Vec<u8>, limit: usize) -> bool {
        for (left, step) in self.0.iter_mut().zip(BREAKS) {
            let room = limit.saturating_sub(buffer.len());
            let count = (*left).min(u32::try_from(room).unwrap_or(u32::MAX));
            buffer.resize(buffer.len() + count as usize, step);
            *left -= count;
            if *left > 0 {
                return false;
            }
        }
        true
    }
}

/// A text without breaks, and its coordinate, which may be out of range.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run<'a> {
    pub(crate) parts: [u64; 9],
    pub(crate) text: &'a str,
}

/// Cuts a phext into texts, one at a time and without a copy. As in libphext, breaks alone (nothing at all, or what is left
/// after the break behind the last text) make one empty text.
#[derive(Debug)]
pub(crate) struct Runs<'a> {
    rest: Option<&'a str>,
    parts: [u64; 9],
}

impl<'a> Runs<'a> {
    pub(crate) fn new(phext: &'a str) -> Self {
        Self { rest: Some(phext), parts: [1; 9] }
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let rest = self.rest.take()?;
        let start = self.parts;
        let mut rest = rest;
        while let Some((level, count)) = leading_breaks(rest) {
            cross(&mut self.parts, level, count);
            rest = rest.get(count..)?;
        }
        if rest.is_empty() {
            return Some(Run { parts: start, text: "" });
        }
        let parts = self.parts;
        let Some((text, behind)) = first_break(rest).and_then(|end| rest.split_at_checked(end)) else {
            return Some(Run { parts, text: rest });
        };
        if let Some(level) = behind.bytes().next().and_then(level_of) {
            cross(&mut self.parts, level, 1);
        }
        self.rest = behind.get(1..).filter(|behind| !behind.is_empty());
        Some(Run { parts, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libphext::phext;
    use proptest::prelude::*;

    fn oracle_parts(at: &phext::Coordinate) -> [u64; 9] {
        let (z, y, x) = (at.z, at.y, at.x);
        [z.library, z.shelf, z.series, y.collection, y.volume, y.book, x.chapter, x.section, x.scroll]
            .map(|part| part as u64)
    }

    proptest! {
        #[test]
        fn runs_are_those_of_libphext(text in "[ab\n\u{1f506}\u{1}\u{17}-\u{1a}\u{1c}-\u{1f}]{0,30}") {
            let oracle = phext::phokenize(&text);
            let expected: Vec<_> = oracle.iter().map(|run| (oracle_parts(&run.coord), run.scroll.as_str())).collect();
            let runs: Vec<_> = Runs::new(&text).map(|run| (run.parts, run.text)).collect();
            prop_assert_eq!(runs, expected);
        }
    }

    #[test]
    fn the_farthest_coordinate_costs_nine_times_its_parts() {
        let far = Coordinate::from_parts([u32::MAX; 9]).unwrap();
        assert_eq!(breaks_between(&Coordinate::ORIGIN, &far), 9 * (u64::from(u32::MAX) - 1));
        assert_eq!(breaks_between(&far, &far), 0);
    }

    #[test]
    fn every_break_is_found_and_nothing_else() {
        for byte in 0..0x80_u8 {
            let is_expected = byte != b'\n' && phext::is_phext_break(byte);
            for before in [0, 1, SCAN_BYTES - 1, SCAN_BYTES, 3 * SCAN_BYTES + 1] {
                let text = format!("{}{}{}", "a".repeat(before), char::from(byte), "b".repeat(SCAN_BYTES));
                assert_eq!(first_break(&text), is_expected.then_some(before), "byte {byte:#x}");
            }
            assert_eq!(level_of(byte).is_some(), is_expected);
        }
    }

    #[test]
    fn steps_stop_where_there_is_no_room_and_go_on() {
        let to = Coordinate::from_parts([1, 1, 1, 1, 1, 1, 3, 1, 4]).unwrap();
        let mut steps = Steps::between(&Coordinate::ORIGIN, &to);
        let mut buffer = Vec::new();
        assert!(!steps.write(&mut buffer, 0));
        assert!(!steps.write(&mut buffer, 3));
        assert_eq!(buffer, b"\x19\x19\x17");
        assert!(steps.write(&mut buffer, 5));
        assert_eq!(buffer, b"\x19\x19\x17\x17\x17");
    }
}
