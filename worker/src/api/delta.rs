//! `delta`: the scrolls that differ from the checksums that the client sends, joined as a phext.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::{Code, Problem};
use xxhash_rust::xxh3::xxh3_128;

use crate::api::checksum::parse_checksum;
use crate::api::input::{Input, MAX_COORDINATES, too_many_coordinates};
use crate::api::outcome::{CommandError, Outcome};
use crate::api::stream::Stream;
use crate::store::{Cursor, Joined, Pending, Phext, Scroll, Store, breaks};

/// The text for a scroll that the client has and the phext does not.
const MISSING: &str = "---sq:Scroll-Missing---";

/// By how much the answer may exceed the phext. The breaks before a missing scroll can take gigabytes, for a line of 80
/// bytes in the request. A client that has synchronised before stays far below this.
const MAX_MISSING_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Delta {
    pub(super) phext: PhextName,
    /// The checksums that the client sent.
    known: BTreeMap<Coordinate, Checksum>,
}

/// A checksum that the client sent; `None`, which equals no other, if it is not 32 hexadecimal digits.
type Checksum = Option<u128>;

impl Delta {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        let phext = input.phext_name()?;
        let posted = if input.body.is_empty() { input.params.get("s").unwrap_or("") } else { &input.body };
        let mut known = BTreeMap::new();
        let lines = posted.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        for (count, (index, line)) in lines.enumerate() {
            if count == MAX_COORDINATES {
                return Err(too_many_coordinates("the body"));
            }
            let (at, checksum) = line.split_once(": ").ok_or_else(|| malformed(index))?;
            let at = input.parse_coordinate(at).map_err(|problem| match problem.code {
                Code::ForeignNamespace => problem,
                _ => malformed(index),
            })?;
            known.insert(at, parse_checksum(checksum));
        }
        Ok(Self { phext, known })
    }

    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, CommandError> {
        let (phext, commit_points) = store.read(&self.phext)?.into_parts();
        self.check_size(phext)?;
        let differing = Joined::new(Differing::new(phext, self.known.clone()));
        Ok(Pending::new(Outcome::TextStream(Stream::new(differing, None)), commit_points))
    }

    /// Checks the size first, because the status is sent before the answer is made. Two sets of scrolls joined take no more
    /// than each of them alone. So if the missing scrolls are within the limit, the answer is too, and no checksum has to be
    /// computed.
    fn check_size(&self, phext: &Phext) -> Result<(), CommandError> {
        let missing = self.known.keys().filter(|at| phext.scroll(at).is_empty());
        if breaks::joined_bytes(missing.map(|at| (*at, MISSING))) <= MAX_MISSING_BYTES {
            return Ok(());
        }
        let bytes = breaks::joined_bytes(Differing::new(phext, self.known.clone()));
        if bytes > phext.file_bytes().saturating_add(MAX_MISSING_BYTES) {
            return Err(CommandError::AnswerTooLarge { bytes });
        }
        Ok(())
    }
}

/// The scrolls that differ from the client's, and [`MISSING`] for each that only the client has.
#[derive(Debug)]
struct Differing {
    scrolls: Peekable<Cursor>,
    known: Peekable<btree_map::IntoIter<Coordinate, Checksum>>,
}

impl Differing {
    fn new(phext: &Phext, known: BTreeMap<Coordinate, Checksum>) -> Self {
        Self { scrolls: phext.cursor(..).peekable(), known: known.into_iter().peekable() }
    }
}

impl Iterator for Differing {
    type Item = (Coordinate, Scroll);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let here = self.scrolls.peek().map(|(at, _)| *at);
            let known = self.known.next_if(|(at, _)| here.is_none_or(|here| *at <= here));
            match known {
                Some((at, _)) if here != Some(at) => return Some((at, Scroll::from_static(MISSING))),
                Some((_, Some(checksum))) => {
                    let differs = |(_, scroll): &Self::Item| xxh3_128(scroll.as_ref()) != checksum;
                    if let Some(differing) = self.scrolls.next().filter(differs) {
                        return Some(differing);
                    }
                }
                _ => return self.scrolls.next(),
            }
        }
    }
}

fn malformed(index: usize) -> Problem {
    let detail = format!("line {} is not '<coordinate>: <checksum>'", index + 1);
    Problem::new(Code::InvalidParameter, detail)
}

#[cfg(test)]
mod tests {
    use sq_shared::route::Route;

    use super::*;

    #[test]
    fn a_body_at_its_limit_and_one_past() {
        let parse =
            |count| Delta::parse(&Input::post(Route::Delta, "1.1.1/1.1.1/1.1.1: 0\n\n".repeat(count)));
        assert_eq!(parse(MAX_COORDINATES).unwrap().known.len(), 1);
        assert_eq!(parse(MAX_COORDINATES + 1).unwrap_err().code, Code::InvalidParameter);
    }

    fn answer(phext: &Phext, known: BTreeMap<Coordinate, Checksum>) -> String {
        let mut bytes = Vec::new();
        Joined::new(Differing::new(phext, known)).fill(&mut bytes, usize::MAX);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn equal_scrolls_are_left_out_and_missing_ones_are_marked() {
        let at = |scroll| Coordinate::from_parts([1, 1, 1, 1, 1, 1, 1, 1, scroll]).unwrap();
        let checksum = |text| parse_checksum(&libphext::phext::checksum(text));
        let phext = Phext::parse(b"same\x17changed\x17new\x17\x17bad").unwrap();
        let known = [
            (at(1), checksum("same")),
            (at(2), checksum("old")),
            (at(4), checksum("gone")),
            (at(5), None),
            (at(7), None),
        ];
        let expected = format!("\x17changed\x17new\x17{MISSING}\x17bad\x17\x17{MISSING}");
        assert_eq!(answer(&phext, known.into()), expected);
        assert_eq!(answer(&phext, BTreeMap::new()), phext.join());
    }

    #[test]
    fn missing_scrolls_at_the_limit_and_one_past() {
        // Twenty of the farthest coordinates, and one with as many more breaks as the limit allows.
        let delta = |breaks: u64| {
            let mut left = u32::try_from(breaks).unwrap();
            let mut last = [1; 9];
            for part in last.iter_mut().skip(1) {
                *part += left.min(99_998);
                left -= *part - 1;
            }
            let far =
                (1..=20).map(|first| std::array::from_fn(|part| if part == 0 { first } else { 99_999 }));
            last[0] = 21;
            let places = far.chain([last]).map(|parts| Coordinate::from_parts(parts).unwrap());
            let known = places.map(|at| (at, None)).collect();
            Delta { phext: PhextName::parse("notes").unwrap(), known }
        };
        let phext = Phext::parse(b"1234567").unwrap();
        let bytes = |delta: &Delta| answer(&phext, delta.known.clone()).len() as u64;
        let limit = phext.file_bytes() + MAX_MISSING_BYTES;
        let breaks = limit - bytes(&delta(0));
        assert_eq!(bytes(&delta(breaks)), limit);
        delta(breaks).check_size(&phext).unwrap();
        let refused = delta(breaks + 1).check_size(&phext).unwrap_err();
        assert!(matches!(refused, CommandError::AnswerTooLarge { bytes } if bytes == limit + 1));
    }
}
