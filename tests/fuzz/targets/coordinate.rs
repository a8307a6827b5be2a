//! Coordinates: accepted is what the grammar allows and nothing else, and libphext reads the same where all nine numbers
//! are there.

use libphext::phext::to_coordinate;
use sq_shared::coordinate::{Coordinate, InvalidCoordinate};
use sq_shared::limits::COORDINATE_TEXT_BYTES;
use sq_shared::tenant::TenantName;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let [alice, bob] = ["alice", "bob"].map(|name| name.parse::<TenantName>().unwrap());
    let ours = Coordinate::parse(text, Some(&alice));
    if text.len() > COORDINATE_TEXT_BYTES {
        return assert_eq!(ours, Err(InvalidCoordinate::TooLong), "{text:?}");
    }
    let bare = text.trim_matches(' ');
    let address = bare.strip_prefix("alice.").unwrap_or(bare);
    let numbers = numbers_in(address);
    assert_eq!(
        ours.clone().ok().map(|at| *at.parts()),
        numbers.clone().and_then(filled_up),
        "{text:?}: {ours:?}"
    );
    for others in [Some(&bob), None] {
        let others = Coordinate::parse(text, others);
        match bare.starts_with("alice.") {
            true => assert_eq!(
                others,
                Err(InvalidCoordinate::ForeignNamespace { name: alice.clone() }),
                "{text:?}"
            ),
            false if bare.starts_with("bob.") => {}
            false => assert_eq!(others.is_ok(), ours.is_ok(), "{text:?}"),
        }
    }
    let Ok(at) = ours else { return };
    let shown = at.to_string();
    for again in
        [shown.clone(), shown.replace('/', ";"), shown.replace('/', "."), format!(" alice.0{shown} ")]
    {
        assert_eq!(Coordinate::parse(&again, Some(&alice)), Ok(at), "{text:?}");
    }
    assert_eq!(Coordinate::from_parts(*at.parts()), Some(at));
    if numbers.is_some_and(|numbers| numbers.len() == 9) {
        assert_eq!(to_coordinate(address).to_string(), shown, "{text:?}");
    }
}

/// The grammar once more, read another way: numbers that print as they stand, but for zeros in front.
fn numbers_in(address: &str) -> Option<Vec<u32>> {
    let number = |part: &str| {
        let bare = part.trim_start_matches('0');
        bare.parse::<u32>().ok().filter(|number| number.to_string() == bare)
    };
    address.replace(['/', ';'], ".").split('.').map(number).collect()
}

/// Three or six of them are filled up.
fn filled_up(mut numbers: Vec<u32>) -> Option<[u32; 9]> {
    if !numbers.len().is_multiple_of(3) {
        return None;
    }
    numbers.resize(numbers.len().max(9), 1);
    numbers.try_into().ok()
}
