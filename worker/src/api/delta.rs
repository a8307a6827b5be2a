//! `delta`: the scrolls that differ from the checksums which the client posts, joined as a phext.

use std::collections::BTreeMap;

use libphext::phext;
use sq_shared::coordinate::Coordinate;
use sq_shared::phext_name::PhextName;
use sq_shared::problem::{Code, Problem};

use crate::api::input::Input;
use crate::api::{COORDINATES, Failure, Outcome, parse_coordinate, phext_name, too_many_coordinates};
use crate::store::{Joined, Scroll, Store, breaks};

/// Stands for a scroll that the client has and we do not.
const MISSING: &str = "---sq:Scroll-Missing---";

/// What the answer may have beyond the phext itself. A missing scroll costs the breaks that lead to
/// it, up to 900 KB for a line of 80 bytes; a client that has synchronised before is far below this.
const MISSING_BYTES: u64 = 16 * 1024 * 1024;

/// Brings what the client has.
#[derive(Debug)]
pub struct Delta {
    phext: PhextName,
    known: BTreeMap<Coordinate, Checksum>,
}

/// A checksum as the client sent it; what is not 32 hexadecimal digits equals none.
type Checksum = Option<u128>;

impl Delta {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        let phext = phext_name(input)?;
        let posted = if input.body.is_empty() { input.params.get("s").unwrap_or("") } else { &input.body };
        let mut known = BTreeMap::new();
        let lines = posted.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        for (count, (index, line)) in lines.enumerate() {
            if count == COORDINATES {
                return Err(too_many_coordinates("the body"));
            }
            let (at, checksum) = line.split_once(": ").ok_or_else(|| malformed(index))?;
            let at = parse_coordinate(at, input.tenant).map_err(|problem| match problem.code {
                Code::ForeignNamespace => problem,
                _ => malformed(index),
            })?;
            known.insert(at, parse_checksum(checksum));
        }
        Ok(Self { phext, known })
    }

    pub(super) fn answer_bytes(&self, store: &mut Store) -> Result<u64, Failure> {
        // All of it, when the client has nothing yet.
        Ok(store.read(&self.phext)?.file_bytes())
    }

    pub(super) fn apply(self, store: &mut Store) -> Result<Outcome, Failure> {
        let phext = store.read(&self.phext)?;
        let mut differing: BTreeMap<Coordinate, Scroll> = BTreeMap::new();
        for (at, text) in phext.iter() {
            let known = self.known.get(at).copied().flatten();
            if known.is_none() || known != parse_checksum(&phext::checksum(text)) {
                differing.insert(*at, phext.scroll_handle(at));
            }
        }
        for at in self.known.keys().filter(|at| phext.scroll(at).is_empty()) {
            differing.insert(*at, Scroll::of_static(MISSING));
        }
        let scrolls = differing.iter().map(|(at, scroll)| (at, scroll.as_str()));
        let bytes = breaks::joined_bytes(scrolls);
        if bytes > phext.file_bytes().saturating_add(MISSING_BYTES) {
            return Err(Failure::AnswerTooLarge { bytes });
        }
        let mut answer = Vec::new();
        Joined::new(differing.into_iter()).fill(&mut answer, usize::MAX);
        Ok(Outcome::text(answer))
    }
}

fn parse_checksum(text: &str) -> Checksum {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

fn malformed(index: usize) -> Problem {
    let detail = format!("line {} is not '<coordinate>: <checksum>'", index + 1);
    Problem::new(Code::InvalidParameter, detail)
}

#[cfg(test)]
mod tests {
    use sq_shared::route::Route;

    use super::*;
    use crate::api::params::Params;

    #[test]
    fn a_body_at_its_limit_and_one_past() {
        let parse = |count| {
            let params = Params::parse("p=notes").unwrap();
            let body = "1.1.1/1.1.1/1.1.1: 0\n\n".repeat(count);
            let route = Route::Delta;
            Delta::parse(&Input { route, is_post: true, params, body, tenant: None, connection_id: 1 })
        };
        assert_eq!(parse(COORDINATES).unwrap().known.len(), 1);
        assert_eq!(parse(COORDINATES + 1).unwrap_err().code, Code::InvalidParameter);
    }
}
