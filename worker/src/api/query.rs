//! `query`: the scrolls of a range and of a set of coordinates, as JSON in coordinate order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::Serialize;
use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::{Code, Problem};

use crate::api::input::Input;
use crate::api::{
    COORDINATES, Failure, Outcome, json_bytes, parse_coordinate, phext_name, too_many_coordinates,
};
use crate::store::{Phext, Store};

/// Asks for scrolls. Of the range only those with a text come back, of the set every one.
#[derive(Debug)]
pub struct Query {
    phext: PhextName,
    range: Option<RangeInclusive<Coordinate>>,
    set: BTreeSet<Coordinate>,
    limit: usize,
}

#[derive(Serialize)]
struct Row<'a> {
    coordinate: String,
    scroll: &'a str,
}

impl Query {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        let phext = phext_name(input)?;
        let range = parse_range(input)?;
        let mut set = BTreeSet::new();
        for (index, item) in set_items(input.params.get("set").unwrap_or(&input.body)).enumerate() {
            if index == COORDINATES {
                return Err(too_many_coordinates("set"));
            }
            set.insert(parse_coordinate(item, input.tenant)?);
        }
        if range.is_none() && set.is_empty() {
            let detail = "say which scrolls: from= and to=, or set= or a body of coordinates";
            return Err(Problem::new(Code::MissingParameter, detail));
        }
        Ok(Self { phext, range, set, limit: parse_limit(input)? })
    }

    pub(super) fn answer_bytes(&self, store: &mut Store) -> Result<u64, Failure> {
        let phext = store.read(&self.phext)?;
        let count = |(rows, bytes), (_, text): (_, &str)| (rows + 1, bytes + text.len() as u64);
        let (rows, text_bytes) = self.pick(phext).fold((0, 0), count);
        Ok(json_bytes(rows, text_bytes))
    }

    pub(super) fn apply(self, store: &mut Store) -> Result<Outcome, Failure> {
        let phext = store.read(&self.phext)?;
        let row = |(at, scroll): (&Coordinate, _)| Row { coordinate: at.to_string(), scroll };
        Outcome::json(&self.pick(phext).map(row).collect::<Vec<_>>())
    }

    /// What is asked for, in coordinate order.
    fn pick<'a>(&'a self, phext: &'a Phext) -> impl Iterator<Item = (&'a Coordinate, &'a str)> {
        let mut picked: BTreeMap<&Coordinate, &str> =
            self.set.iter().map(|at| (at, phext.scroll(at))).collect();
        if let Some(range) = self.range.clone() {
            picked.extend(phext.range(range));
        }
        picked.into_iter().take(self.limit)
    }
}

/// A value that is there and not empty: `from=` alone says nothing.
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
    let (from, to) = (parse_coordinate(from, input.tenant)?, parse_coordinate(to, input.tenant)?);
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

/// Cuts a set at commas, line ends and semicolons. A semicolon may stand for the slash of a coordinate
/// too: it does in a piece that has no slash.
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
    use crate::api::params::Params;

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
        let parse = |count| {
            let params = Params::parse("p=notes").unwrap();
            let body = "1.1.1/1.1.1/1.1.1\n".repeat(count);
            let route = Route::Query;
            Query::parse(&Input { route, is_post: true, params, body, tenant: None, connection_id: 1 })
        };
        assert_eq!(parse(COORDINATES).unwrap().set.len(), 1);
        let refused = parse(COORDINATES + 1).unwrap_err();
        assert_eq!(refused.code, Code::InvalidParameter);
        assert!(refused.detail.contains("100000"), "{}", refused.detail);
    }
}
