//! `checksum`: 32 hexadecimal digits that stand for the whole phext.

use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;
use xxhash_rust::xxh3::Xxh3;

use crate::api::input::Input;
use crate::api::{Failure, Outcome, phext_name};
use crate::store::{Pending, Phext, Store};

/// How many bytes are joined at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Asks for a phext's checksum.
#[derive(Debug)]
pub struct Checksum {
    phext: PhextName,
}

impl Checksum {
    pub(super) fn parse(input: &Input<'_>) -> Result<Self, Problem> {
        Ok(Self { phext: phext_name(input)? })
    }

    pub(super) fn apply(&self, store: &mut Store) -> Result<Pending<Outcome>, Failure> {
        Ok(store.read(&self.phext)?.map(|phext| Outcome::text(checksum(phext))))
    }
}

/// The XXH3-128 of the phext as a file, which need not be in memory as one.
fn checksum(phext: &Phext) -> String {
    let mut joined = phext.joined();
    let mut hasher = Xxh3::new();
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let has_more = joined.fill(&mut buffer, BUFFER_BYTES);
        hasher.update(&buffer);
        if !has_more {
            return format!("{:032x}", hasher.digest128());
        }
    }
}

/// Reads a checksum as `checksum` and an `ETag` write it: 32 hexadecimal digits, and nothing else.
pub(crate) fn parse_checksum(text: &str) -> Option<u128> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_libphext() {
        for text in ["", "a", "a\x17b\x01c", &"long ".repeat(50_000), &"\x17 ".repeat(90_000)] {
            let phext = Phext::parse(text.as_bytes()).unwrap();
            assert_eq!(checksum(&phext), libphext::phext::checksum(text));
        }
    }
}
