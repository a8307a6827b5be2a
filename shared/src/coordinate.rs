//! Coordinates: `a.b.c/d.e.f/g.h.i`, strictly.
//!
//! `libphext` reads an address leniently: it skips letters, so `alice.1.1.1/…` would be `1.1.1/…`, and a digit in a
//! name would shift every part. Isolation must not depend on that, so this parser is strict; the tests compare it
//! with libphext for every text that both accept.

use std::fmt;

use crate::limits::COORDINATE_TEXT_BYTES;
use crate::tenant::TenantName;

/// A place in a phext: nine parts of 1 to 4,294,967,295, the largest dimension (library) first. The config limits the
/// parts of a new scroll (`limits.coordinate`), the type does not.
///
/// The order of the type is the order of the scrolls in the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinate([u32; 9]);

/// Why a text is not a coordinate of this tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCoordinate {
    /// Not three, six or nine numbers.
    #[error(
        "a coordinate is three, six or nine numbers, as in 1.1.1/1.1.1/1.1.1 ('.', '/' and ';' separate them)"
    )]
    Shape,
    /// A part that is not a plain number from 1 to 4,294,967,295.
    #[error("part {position} of the coordinate is not a number from 1 to 4294967295")]
    Part {
        /// Which of the nine parts, counted from 1.
        position: usize,
    },
    /// More text than any coordinate needs.
    #[error("the coordinate is longer than {COORDINATE_TEXT_BYTES} bytes")]
    TooLong,
    /// The name in front belongs to another tenant.
    #[error(
        "\"{name}\" in front of the coordinate is read as the name of a tenant, and the key is another's: leave it out"
    )]
    ForeignNamespace {
        /// The name.
        name: TenantName,
    },
}

impl Coordinate {
    /// The first coordinate of a phext.
    pub const ORIGIN: Self = Self([1; 9]);

    /// Reads a coordinate. Missing groups of three at its end are 1.1.1; spaces around it and leading zeros are
    /// ignored. The tenant's own name and a dot may precede it; the name is checked, then removed. Without a tenant
    /// (a worker that was started alone and unnamed) no name is allowed.
    pub fn parse(text: &str, tenant: Option<&TenantName>) -> Result<Self, InvalidCoordinate> {
        if text.len() > COORDINATE_TEXT_BYTES {
            return Err(InvalidCoordinate::TooLong);
        }
        let address = strip_namespace(text.trim_matches(' '), tenant)?;
        let (mut parts, mut count) = ([1; 9], 0);
        for part in address.as_bytes().split(|byte| b"./;".contains(byte)) {
            let slot = parts.get_mut(count).ok_or(InvalidCoordinate::Shape)?;
            count += 1;
            *slot = parse_part(part).ok_or(InvalidCoordinate::Part { position: count })?;
        }
        if matches!(count, 3 | 6 | 9) { Ok(Self(parts)) } else { Err(InvalidCoordinate::Shape) }
    }

    /// A coordinate from its nine parts; `None` when one is 0.
    pub fn from_parts(parts: [u32; 9]) -> Option<Self> {
        parts.iter().all(|part| *part >= 1).then_some(Self(parts))
    }

    /// The nine parts, library first.
    pub fn parts(&self) -> &[u32; 9] {
        &self.0
    }

    /// The largest of the nine parts.
    pub fn largest_part(&self) -> u32 {
        self.0.iter().copied().max().unwrap_or(1)
    }
}

fn strip_namespace<'a>(text: &'a str, tenant: Option<&TenantName>) -> Result<&'a str, InvalidCoordinate> {
    let Some((front, rest)) = text.split_once('.') else { return Ok(text) };
    match front.parse::<TenantName>() {
        Err(_) => Ok(text),
        Ok(name) if Some(&name) == tenant => Ok(rest),
        Ok(name) => Err(InvalidCoordinate::ForeignNamespace { name }),
    }
}

/// Digits only; a number of 32 bits that is not 0.
fn parse_part(digits: &[u8]) -> Option<u32> {
    let value = digits.iter().try_fold(0_u32, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    Some(value).filter(|value| *value >= 1)
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

    fn foreign(name: &str) -> Result<Coordinate, InvalidCoordinate> {
        Err(InvalidCoordinate::ForeignNamespace { name: name.parse().unwrap() })
    }

    #[test]
    fn the_namespace_is_checked_then_taken_off() {
        assert_eq!(parse("alice.1.2.3/4.5.6/7.8.9"), parse("1.2.3/4.5.6/7.8.9"));
        assert_eq!(parse(" alice.1.2.3 "), parse("1.2.3/1.1.1/1.1.1"));
        assert_eq!(parse("bob.1.1.1/1.1.1/1.1.1"), foreign("bob"));
        assert_eq!(parse("user001.2.3.4/5.6.7/8.9.10"), foreign("user001"));
        assert_eq!(parse("alice.alice.1.1.1/1.1.1/1.1.1"), Err(InvalidCoordinate::Part { position: 1 }));
        assert_eq!(parse("alice/1.1.1/1.1.1/1.1.1"), Err(InvalidCoordinate::Part { position: 1 }));
        assert_eq!(parse("Bob.1.1.1/1.1.1/1.1.1"), Err(InvalidCoordinate::Part { position: 1 }));
        assert_eq!(Coordinate::parse("alice.1.1.1/1.1.1/1.1.1", None), foreign("alice"));
    }

    #[test]
    fn parts_at_the_limit_and_one_past() {
        assert_eq!(parse("1.1.1/1.1.1/1.1.4294967295").unwrap().largest_part(), u32::MAX);
        assert_eq!(parse("1.1.1/1.1.1/1.1.4294967296"), Err(InvalidCoordinate::Part { position: 9 }));
        assert_eq!(parse("0.1.1/1.1.1/1.1.1"), Err(InvalidCoordinate::Part { position: 1 }));
        assert_eq!(parse("1.1.1/1.1.1/1.1.000"), Err(InvalidCoordinate::Part { position: 9 }));
        let longest = format!("{}1.1.1", "0".repeat(COORDINATE_TEXT_BYTES - 5));
        assert_eq!(parse(&longest), Ok(Coordinate::ORIGIN));
        assert_eq!(parse(&format!("0{longest}")), Err(InvalidCoordinate::TooLong));
    }

    #[test]
    fn groups_that_are_missing_are_filled_up_and_zeros_and_spaces_mean_nothing() {
        for (short, whole) in [
            ("7.1.1/3.1.1", "7.1.1/3.1.1/1.1.1"),
            ("8.1.2", "8.1.2/1.1.1/1.1.1"),
            ("20260211.1.1", "20260211.1.1/1.1.1/1.1.1"),
            ("  1.2.3/4.5.6/7.8.9 ", "1.2.3/4.5.6/7.8.9"),
            ("01.002.3/4.5.6/7.8.0009", "1.2.3/4.5.6/7.8.9"),
            ("1.2.3;4.5.6;7.8.9", "1.2.3/4.5.6/7.8.9"),
            ("1.2.3.4.5.6.7.8.9", "1.2.3/4.5.6/7.8.9"),
            ("1/2/3/4;5;6.7.8.9", "1.2.3/4.5.6/7.8.9"),
            ("alice.007.1.1;3.1.1", "7.1.1/3.1.1/1.1.1"),
        ] {
            assert_eq!(parse(short).map(|at| at.to_string()), Ok(whole.to_owned()), "{short:?}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            "",
            " ",
            "garbage",
            "1",
            "1.1",
            "1.1.1.1",
            "1.1.1/1.1",
            "1.1.1/1.1.1/1",
            "1.1.1/1.1.1/1.1",
            "1.1.1/1.1.1/1.1.1/1",
            "1.1.1/1.1.1/1.1.1/1.1.1",
            "1.1.1/",
            "1.1.1/1.1.1/1.1.1/",
            "/1.1.1/1.1.1/1.1.1",
            ".1.1.1",
            "1.1.1//1.1.1",
            "1.1.1 /1.1.1/1.1.1",
            "1. 1.1/1.1.1/1.1.1",
            "\t1.1.1/1.1.1/1.1.1",
            "1.1.1/1.1.1/1.1.1\n",
            "+1.1.1/1.1.1/1.1.1",
            "-1.1.1/1.1.1/1.1.1",
            "1.1.1/1.1.1/1.1.1\0",
            "1.1.1/1.1.1/1.1.1x",
            "a.b.c/1.1.1/1.1.1",
            "1..1/1.1.1/1.1.1",
            "1.1.1\\1.1.1\\1.1.1",
            "1,1,1/1.1.1/1.1.1",
            "1e3.1.1",
            "\u{661}.1.1",
            "ALICE.1.1.1/1.1.1/1.1.1",
        ] {
            assert!(parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn libphext_reads_what_we_read(parts in prop::array::uniform9(1u32..)) {
            let ours = Coordinate::from_parts(parts).unwrap();
            let text = ours.to_string();
            prop_assert_eq!(parse(&text).unwrap(), ours);
            prop_assert_eq!(parse(&text.replace('/', ";")).unwrap(), ours);
            prop_assert_eq!(parse(&text.replace('/', ".")).unwrap(), ours);
            prop_assert_eq!(libphext::phext::to_coordinate(&text).to_string(), text);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
