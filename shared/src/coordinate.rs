//! Coordinates: `a.b.c/d.e.f/g.h.i`, strictly.
//!
//! `libphext` reads an address leniently: it skips letters, so `alice.1.1.1/…` would be `1.1.1/…`, and
//! a digit in a name would shift every part. Isolation must not hang on that, so the parser is ours;
//! libphext stays the oracle in the tests for every text that both accept.

use std::fmt;

use crate::limits::COORDINATE_PART;
use crate::tenant::TenantName;

/// A place in a phext: nine parts of 1 to 99,999, the largest dimension (library) first.
///
/// The order of the type is the order of the scrolls in the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinate([u32; 9]);

/// Why a text is not a coordinate of this tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCoordinate {
    /// Not three groups of three numbers.
    #[error("a coordinate is nine numbers, as in 1.1.1/1.1.1/1.1.1 (';' may stand for '/')")]
    Shape,
    /// A part that is not a plain number from 1 to 99,999.
    #[error("part {position} of the coordinate is not a number from 1 to 99999 without leading zeros")]
    Part {
        /// Which of the nine parts, counted from 1.
        position: usize,
    },
    /// The name in front belongs to another tenant.
    #[error("the coordinate's namespace is not that of the key's tenant")]
    ForeignNamespace,
}

impl Coordinate {
    /// Where a phext begins: `1.1.1/1.1.1/1.1.1`.
    pub const ORIGIN: Self = Self([1; 9]);

    /// Reads a coordinate. In front may stand the tenant's own name and a dot; it is checked, then
    /// taken off. Without a tenant (a worker that was started alone and unnamed) no name is allowed.
    ///
    /// # Errors
    /// Says which part is wrong, or that the namespace is another's.
    pub fn parse(text: &str, tenant: Option<&TenantName>) -> Result<Self, InvalidCoordinate> {
        let address = strip_namespace(text, tenant)?;
        let mut parts = [0; 9];
        let mut position = 0;
        for (group_index, group) in address.as_bytes().split(|byte| b"/;".contains(byte)).enumerate() {
            let start = position;
            for part in group.split(|byte| *byte == b'.') {
                let slot = parts.get_mut(position).ok_or(InvalidCoordinate::Shape)?;
                position += 1;
                *slot = parse_part(part).ok_or(InvalidCoordinate::Part { position })?;
            }
            if group_index > 2 || position - start != 3 {
                return Err(InvalidCoordinate::Shape);
            }
        }
        if position == 9 { Ok(Self(parts)) } else { Err(InvalidCoordinate::Shape) }
    }

    /// A coordinate from its nine parts; `None` when one is not 1 to 99,999.
    pub fn from_parts(parts: [u32; 9]) -> Option<Self> {
        parts.iter().all(|part| (1..=COORDINATE_PART).contains(part)).then_some(Self(parts))
    }

    /// The nine parts, library first.
    pub fn parts(&self) -> &[u32; 9] {
        &self.0
    }
}

fn strip_namespace<'a>(text: &'a str, tenant: Option<&TenantName>) -> Result<&'a str, InvalidCoordinate> {
    let Some((front, rest)) = text.split_once('.') else {
        return Err(InvalidCoordinate::Shape);
    };
    match front.parse::<TenantName>() {
        Err(_) => Ok(text),
        Ok(name) if Some(&name) == tenant => Ok(rest),
        Ok(_) => Err(InvalidCoordinate::ForeignNamespace),
    }
}

/// One to five digits, the first of which is not 0.
fn parse_part(digits: &[u8]) -> Option<u32> {
    match digits {
        [b'1'..=b'9', rest @ ..] if rest.len() < 5 && rest.iter().all(u8::is_ascii_digit) => {
            Some(digits.iter().fold(0, |value, digit| 10 * value + u32::from(digit - b'0')))
        }
        _ => None,
    }
}

impl fmt::Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i, j] = self.0;
        write!(f, "{a}.{b}.{c}/{d}.{e}.{g}/{h}.{i}.{j}")
    }
}

impl fmt::Debug for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alice() -> TenantName {
        "alice".parse().unwrap()
    }

    fn parse(text: &str) -> Result<Coordinate, InvalidCoordinate> {
        Coordinate::parse(text, Some(&alice()))
    }

    #[test]
    fn the_namespace_is_checked_then_taken_off() {
        assert_eq!(parse("alice.1.2.3/4.5.6/7.8.9"), parse("1.2.3/4.5.6/7.8.9"));
        assert_eq!(parse("bob.1.1.1/1.1.1/1.1.1"), Err(InvalidCoordinate::ForeignNamespace));
        assert_eq!(parse("user001.2.3.4/5.6.7/8.9.10"), Err(InvalidCoordinate::ForeignNamespace));
        assert_eq!(parse("alice.alice.1.1.1/1.1.1/1.1.1"), Err(InvalidCoordinate::Part { position: 1 }));
        let unnamed = Coordinate::parse("alice.1.1.1/1.1.1/1.1.1", None);
        assert_eq!(unnamed, Err(InvalidCoordinate::ForeignNamespace));
    }

    #[test]
    fn parts_at_the_limit_and_one_past() {
        assert!(parse("1.1.1/1.1.1/1.1.99999").is_ok());
        assert_eq!(parse("1.1.1/1.1.1/1.1.100000"), Err(InvalidCoordinate::Part { position: 9 }));
        assert_eq!(parse("0.1.1/1.1.1/1.1.1"), Err(InvalidCoordinate::Part { position: 1 }));
        assert_eq!(parse("1.1.1/1.1.1/1.1.01"), Err(InvalidCoordinate::Part { position: 9 }));
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            "",
            "garbage",
            "1",
            "1.1.1",
            "1.1.1/1.1.1",
            "1.1.1/1.1.1/1.1.1/1.1.1",
            "1.1.1.1/1.1/1.1.1",
            "1.1.1/1.1.1/1.1.1/",
            "/1.1.1/1.1.1/1.1.1",
            "1.1.1 /1.1.1/1.1.1",
            " 1.1.1/1.1.1/1.1.1",
            "+1.1.1/1.1.1/1.1.1",
            "-1.1.1/1.1.1/1.1.1",
            "1.1.1/1.1.1/1.1.1\0",
            "1.1.1/1.1.1/1.1.1x",
            "a.b.c/1.1.1/1.1.1",
            "1..1/1.1.1/1.1.1",
            "1.1.1\\1.1.1\\1.1.1",
            "1,1,1/1.1.1/1.1.1",
            "ALICE.1.1.1/1.1.1/1.1.1",
        ] {
            assert!(parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn libphext_reads_what_we_read(parts in prop::array::uniform9(1u32..=COORDINATE_PART)) {
            let ours = Coordinate::from_parts(parts).unwrap();
            let text = ours.to_string();
            prop_assert_eq!(parse(&text).unwrap(), ours);
            prop_assert_eq!(parse(&text.replace('/', ";")).unwrap(), ours);
            prop_assert_eq!(libphext::phext::to_coordinate(&text).to_string(), text);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
