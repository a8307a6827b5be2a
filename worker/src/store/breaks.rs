//! The nine breaks of a phext: how a text is cut into scrolls, how scrolls are joined again, and what
//! the breaks between two coordinates cost, counted before a byte is written.

use sq_shared::coordinate::Coordinate;

/// The breaks as text, the largest dimension (library) first, as in a coordinate.
const BREAKS: [&str; 9] = ["\x01", "\x1f", "\x1e", "\x1d", "\x1c", "\x1a", "\x19", "\x18", "\x17"];

/// Which of the nine parts of a coordinate a byte advances; `None` for a byte of text.
fn level_of(byte: u8) -> Option<usize> {
    match byte {
        0x01 => Some(0),
        0x1f => Some(1),
        0x1e => Some(2),
        0x1d => Some(3),
        0x1c => Some(4),
        0x1a => Some(5),
        0x19 => Some(6),
        0x18 => Some(7),
        0x17 => Some(8),
        _ => None,
    }
}

/// Where the first break of a text is. A line feed is none: it stays inside a scroll.
pub fn first_break(text: &str) -> Option<usize> {
    text.bytes().position(|byte| level_of(byte).is_some())
}

/// How many breaks lead from one coordinate to a later one.
pub fn breaks_between(from: &Coordinate, to: &Coordinate) -> u64 {
    counts_between(from, to).iter().map(|count| u64::from(*count)).sum()
}

/// How many breaks of each dimension lead from one coordinate to a later one: the first part that
/// differs advances, and every smaller one starts again from 1.
fn counts_between(from: &Coordinate, to: &Coordinate) -> [u32; 9] {
    let mut counts = [0; 9];
    let mut restarted = false;
    for (count, (old, new)) in counts.iter_mut().zip(from.parts().iter().zip(to.parts())) {
        *count = new.saturating_sub(if restarted { 1 } else { *old });
        restarted |= old != new;
    }
    counts
}

/// How many bytes the scrolls take, joined.
pub fn joined_bytes<'a>(scrolls: impl Iterator<Item = (&'a Coordinate, &'a str)>) -> u64 {
    let mut here = Coordinate::ORIGIN;
    let mut total = 0;
    for (at, text) in scrolls {
        total += breaks_between(&here, at) + text.len() as u64;
        here = *at;
    }
    total
}

/// Joins scrolls, which come in coordinate order, and hands each piece to `sink`.
///
/// # Errors
/// What the sink says.
pub fn join<'a, E>(
    scrolls: impl Iterator<Item = (&'a Coordinate, &'a str)>,
    mut sink: impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    let mut here = Coordinate::ORIGIN;
    for (at, text) in scrolls {
        for (count, text) in counts_between(&here, at).into_iter().zip(BREAKS) {
            for _ in 0..count {
                sink(text)?;
            }
        }
        sink(text)?;
        here = *at;
    }
    Ok(())
}

/// Joins scrolls into a text.
pub fn join_to_string<'a>(scrolls: impl Iterator<Item = (&'a Coordinate, &'a str)> + Clone) -> String {
    let bytes = usize::try_from(joined_bytes(scrolls.clone())).unwrap_or(usize::MAX);
    let mut text = String::with_capacity(bytes);
    let joined: Result<(), std::convert::Infallible> = join(scrolls, |piece| {
        text.push_str(piece);
        Ok(())
    });
    let Ok(()) = joined;
    text
}

/// A run of text and the nine parts of where it stands, which may be larger than a coordinate's.
#[derive(Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// Library first.
    pub parts: [u32; 9],
    /// Without a break.
    pub text: &'a str,
}

/// Cuts a phext into its runs of text, one at a time and without a copy. As in libphext, breaks alone
/// (nothing at all, or what is left after the break behind the last text) make one empty run.
#[derive(Debug)]
pub struct Runs<'a> {
    rest: Option<&'a str>,
    parts: [u32; 9],
}

impl<'a> Runs<'a> {
    /// Starts at the origin.
    pub fn new(phext: &'a str) -> Self {
        Self { rest: Some(phext), parts: [1; 9] }
    }

    fn cross(&mut self, level: usize) {
        for (position, part) in self.parts.iter_mut().enumerate().skip(level) {
            *part = if position == level { part.saturating_add(1) } else { 1 };
        }
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let rest = self.rest.take()?;
        let start = self.parts;
        let mut leading = 0;
        for level in rest.bytes().map_while(level_of) {
            self.cross(level);
            leading += 1;
        }
        let (_, rest) = rest.split_at_checked(leading)?;
        if rest.is_empty() {
            return Some(Run { parts: start, text: "" });
        }
        let parts = self.parts;
        let Some((text, behind)) = first_break(rest).and_then(|end| rest.split_at_checked(end)) else {
            return Some(Run { parts, text: rest });
        };
        if let Some(level) = behind.bytes().next().and_then(level_of) {
            self.cross(level);
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
    use std::collections::{BTreeMap, HashMap};

    fn oracle_parts(at: &phext::Coordinate) -> [u32; 9] {
        let (z, y, x) = (at.z, at.y, at.x);
        [z.library, z.shelf, z.series, y.collection, y.volume, y.book, x.chapter, x.section, x.scroll]
            .map(|part| u32::try_from(part).unwrap())
    }

    fn small_map() -> impl Strategy<Value = BTreeMap<[u32; 9], String>> {
        let parts = prop::array::uniform9(prop_oneof![4 => Just(1_u32), 2 => 2..4_u32, 1 => 1..40_u32]);
        prop::collection::btree_map(parts, "[a-z\n\u{e4}]{1,6}", 0..12)
    }

    proptest! {
        #[test]
        fn runs_are_those_of_libphext(text in "[ab\n\u{1f506}\u{1}\u{17}-\u{1a}\u{1c}-\u{1f}]{0,30}") {
            let oracle = phext::phokenize(&text);
            let expected: Vec<_> = oracle.iter().map(|run| (oracle_parts(&run.coord), run.scroll.as_str())).collect();
            let runs: Vec<_> = Runs::new(&text).map(|run| (run.parts, run.text)).collect();
            prop_assert_eq!(runs, expected);
        }

        #[test]
        fn joining_is_the_implode_of_libphext(scrolls in small_map()) {
            let ours: BTreeMap<_, _> =
                scrolls.iter().map(|(parts, text)| (Coordinate::from_parts(*parts).unwrap(), text)).collect();
            let oracle: HashMap<_, _> =
                ours.iter().map(|(at, text)| (phext::to_coordinate(&at.to_string()), (*text).clone())).collect();
            let expected = phext::implode(oracle);
            let pairs = ours.iter().map(|(at, text)| (at, text.as_str()));
            prop_assert_eq!(joined_bytes(pairs.clone()), expected.len() as u64);
            prop_assert_eq!(join_to_string(pairs), expected);
        }
    }

    #[test]
    fn the_farthest_coordinate_costs_nine_times_its_parts() {
        let far = Coordinate::from_parts([99_999; 9]).unwrap();
        assert_eq!(breaks_between(&Coordinate::ORIGIN, &far), 9 * 99_998);
        assert_eq!(breaks_between(&far, &far), 0);
    }

    #[test]
    fn every_break_is_found_and_nothing_else() {
        for byte in 0..0x80_u8 {
            let text = format!("a{}", char::from(byte));
            let is_break = byte != b'\n' && phext::is_phext_break(byte);
            assert_eq!(first_break(&text), is_break.then_some(1), "byte {byte:#x}");
        }
    }
}
