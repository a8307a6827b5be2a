//! `query`: the scrolls of a range and a set of coordinates, as JSON in coordinate order.

use std::collections::{BTreeSet, btree_set};
use std::iter::{Flatten, Peekable};
use std::ops::RangeInclusive;
use std::option;

use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::{Code, Problem};

use crate::api::input::{Input, MAX_COORDINATES, too_many_coordinates};
use crate::api::outcome::{CommandError, Outcome, Pinned};
use crate::api::stream::{JsonRows, Stream};
use crate::store::{Cursor, Pending, Phext, Scroll, Store};

/// The size of a row without its text: the coordinate, usually 17 bytes and up to 98, and the names of the fields.
const ROW_BYTES: usize = 128;

/// Rows of this size usually fit in one piece of the answer, even with quotes and line ends escaped.
const SHORT_BYTES: usize = 32 * 1024;

/// A query answers the scrolls of the range that have a text, and every scroll of the set.
#[derive(Debug)]
pub(crate) struct Query {
    phext: PhextName,
    range: Option<RangeInclusive<Coordinate>>,
    set: BTreeSet<Coordinate>,
    limit: usize,
}

impl Query {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        let phext = input.phext_name()?;
        let range = parse_range(input)?;
        let mut set = BTreeSet::new();
        for (index, item) in set_items(input.params.get("set").unwrap_or(&input.body)).enumerate() {
            if index == MAX_COORDINATES {
                return Err(too_many_coordinates("set"));
            }
            set.insert(input.parse_coordinate(item)?);
        }
        if range.is_none() && set.is_empty() {
            let detail = "say which scrolls: from= and to=, or set= or a body of coordinates";
            return Err(Problem::new(Code::MissingParameter, detail));
        }
        Ok(Self { phext, range, set, limit: parse_limit(input)? })
    }

    pub(super) fn pinned(&self, store: &mut Store) -> Result<Pinned, CommandError> {
        let phext = store.peek(&self.phext)?;
        // A short answer is made whole, and pins nothing of the phext.
        let ranged = self.range.iter().flat_map(|range| phext.range(range.clone())).map(|(_, text)| text);
        let texts = self.set.iter().map(|at| phext.scroll(at)).chain(ranged);
        let mut bytes = texts.take(self.limit).scan(0, |bytes, text| {
            *bytes += ROW_BYTES + text.len();
            Some(*bytes)
        });
        let is_short = bytes.all(|bytes| bytes <= SHORT_BYTES);
        Ok(if is_short { Pinned::NOTHING } else { Pinned::phext(phext) })
    }

    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, CommandError> {
        let picked = store.read(&self.phext)?.map(|phext| {
            let ranged = self.range.clone().map(|range| phext.cursor(range));
            Picked {
                set: self.set.clone().into_iter().peekable(),
                ranged: ranged.into_iter().flatten().peekable(),
                phext: phext.clone(),
            }
        });
        Ok(picked.map(|picked| {
            let rows = JsonRows::new(picked.take(self.limit), "coordinate");
            Outcome::Json(Stream::new(rows, None))
        }))
    }
}

/// The scrolls of a set and of a range, in coordinate order.
#[derive(Debug)]
struct Picked {
    phext: Phext,
    set: Peekable<btree_set::IntoIter<Coordinate>>,
    ranged: Peekable<Flatten<option::IntoIter<Cursor>>>,
}

impl Iterator for Picked {
    type Item = (Coordinate, Scroll);

    fn next(&mut self) -> Option<Self::Item> {
        let ranged = self.ranged.peek().map(|(at, _)| *at);
        let Some(at) = self.set.next_if(|at| ranged.is_none_or(|ranged| *at <= ranged)) else {
            return self.ranged.next();
        };
        self.ranged.next_if(|(ranged, _)| *ranged == at);
        Some((at, self.phext.scroll_handle(&at)))
    }
}

/// A parameter's value, unless it is empty: `from=` counts as absent.
fn filled<'a>(input: &'a Input<'_>, name: &str) -> Option<&'a str> {
    input.params.get(name).map(str::trim).filter(|value| !value.is_empty())
}

fn parse_range(input: &Input<'_>) -> Result<Option<RangeInclusive<Coordinate>>, Problem> {
    let (from, to) = match (filled(input, "from"), filled(input, "to")) {
        (None, None) => return Ok(None),
        (Some(from), Some(to)) => (from, to),
        _ => {
            return Err(Problem::new(
                Code::MissingParameter,
                "a range has two ends: give both from= and to=",
            ));
        }
    };
    let (from, to) = (input.parse_coordinate(from)?, input.parse_coordinate(to)?);
    if from > to {
        return Err(Problem::new(Code::InvalidParameter, "from= comes after to=: exchange them"));
    }
    Ok(Some(from..=to))
}

fn parse_limit(input: &Input<'_>) -> Result<usize, Problem> {
    let Some(limit) = filled(input, "limit") else { return Ok(usize::MAX) };
    limit
        .parse()
        .map_err(|_| Problem::new(Code::InvalidParameter, "limit= is a whole number, as in limit=100"))
}

/// Splits a set at commas, line ends and semicolons. In a piece without a slash, a semicolon stands for the slash of a
/// coordinate.
fn set_items(set: &str) -> impl Iterator<Item = &str> {
    set.split([',', '\n'])
        .flat_map(|piece| {
            let is_whole = !piece.contains('/');
            piece.split(move |c| c == ';' && !is_whole)
        })
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use sq_shared::route::Route;

    use super::*;

    #[test]
    fn a_semicolon_separates_or_stands_for_a_slash() {
        let items = |set| set_items(set).collect::<Vec<_>>();
        assert_eq!(items("1.1.1/1.1.1/1.1.1;1.1.1/1.1.1/1.1.2"), ["1.1.1/1.1.1/1.1.1", "1.1.1/1.1.1/1.1.2"]);
        assert_eq!(items("1.1.1;1.1.1;1.1.1, 1.1.1;1.1.1;1.1.2"), ["1.1.1;1.1.1;1.1.1", "1.1.1;1.1.1;1.1.2"]);
        assert_eq!(items(" a\r\n\n,b,"), ["a", "b"]);
        assert!(items("").is_empty());
    }

    #[test]
    fn a_set_at_its_limit_and_one_past() {
        let parse = |count| Query::parse(&Input::post(Route::Query, "1.1.1/1.1.1/1.1.1\n".repeat(count)));
        assert_eq!(parse(MAX_COORDINATES).unwrap().set.len(), 1);
        let refused = parse(MAX_COORDINATES + 1).unwrap_err();
        assert_eq!(refused.code, Code::InvalidParameter);
        assert!(refused.detail.contains("100000"), "{}", refused.detail);
    }
}
