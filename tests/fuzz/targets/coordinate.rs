//! Coordinates: accepted is what the grammar allows and nothing else, and libphext reads the same.

use libphext::phext::to_coordinate;
use sq_shared::coordinate::{Coordinate, InvalidCoordinate};
use sq_shared::tenant::TenantName;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let [alice, bob] = ["alice", "bob"].map(|name| name.parse::<TenantName>().unwrap());
    let ours = Coordinate::parse(text, Some(&alice));
    let address = text.strip_prefix("alice.").unwrap_or(text);
    assert_eq!(ours.clone().ok().map(|at| *at.parts()), by_the_grammar(address), "{text:?}: {ours:?}");
    for others in [Some(&bob), None] {
        let others = Coordinate::parse(text, others);
        match text.starts_with("alice.") {
            true => assert_eq!(others, Err(InvalidCoordinate::ForeignNamespace), "{text:?}"),
            false if text.starts_with("bob.") => {}
            false => assert_eq!(others.is_ok(), ours.is_ok(), "{text:?}"),
        }
    }
    let Ok(at) = ours else { return };
    let shown = at.to_string();
    for again in [shown.clone(), shown.replace('/', ";"), format!("alice.{shown}")] {
        assert_eq!(Coordinate::parse(&again, Some(&alice)), Ok(at), "{text:?}");
    }
    assert_eq!(Coordinate::from_parts(*at.parts()), Some(at));
    assert_eq!(to_coordinate(address).to_string(), shown, "{text:?}");
}

/// The grammar once more, read another way: nine numbers that print as they stand.
fn by_the_grammar(address: &str) -> Option<[u32; 9]> {
    let groups: Vec<Vec<&str>> = address.split(['/', ';']).map(|group| group.split('.').collect()).collect();
    let is_three_by_three = groups.len() == 3 && groups.iter().all(|group| group.len() == 3);
    let number = |part: &&str| {
        let number = part.parse::<u32>().ok().filter(|number| (1..=99_999).contains(number))?;
        (number.to_string() == *part).then_some(number)
    };
    let parts: Option<Vec<u32>> = groups.iter().flatten().map(number).collect();
    parts?.try_into().ok().filter(|_| is_three_by_three)
}
