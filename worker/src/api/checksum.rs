//! `checksum`: 32 hexadecimal digits that stand for the whole phext.

use std::cell::RefCell;
use std::collections::VecDeque;

use sq_shared::phext_name::PhextName;
use sq_shared::problem::Problem;
use xxhash_rust::xxh3::Xxh3;

use crate::api::input::Input;
use crate::api::{Failure, Outcome, phext_name};
use crate::store::{Pending, Phext, State, Store};

/// How many bytes are joined at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Of how many long phexts the checksum is kept. It takes as long as the phext: 64 MiB some 20 ms.
const KEPT: usize = 64;

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
        Ok(store.read(&self.phext)?.map(|phext| Outcome::text(format!("{:032x}", checksum(phext)))))
    }
}

thread_local! {
    /// The checksums of long phexts that were asked for last. A state is never another one's, so none is ever wrong; a
    /// worker's commands all run in one thread.
    static LONG: RefCell<VecDeque<(State, u128)>> = const { RefCell::new(VecDeque::new()) };
}

/// The XXH3-128 of the phext as a file, which need not be in memory as one.
pub(super) fn checksum(phext: &Phext) -> u128 {
    if phext.file_bytes() <= BUFFER_BYTES as u64 {
        return computed(phext);
    }
    let state = phext.state();
    let is_same = |(known, _): &&(State, u128)| *known == state;
    let known = LONG.with_borrow(|long| long.iter().find(is_same).map(|(_, checksum)| *checksum));
    known.unwrap_or_else(|| {
        let checksum = computed(phext);
        LONG.with_borrow_mut(|long| {
            long.truncate(KEPT - 1);
            long.push_front((state, checksum));
        });
        checksum
    })
}

fn computed(phext: &Phext) -> u128 {
    let mut joined = phext.joined();
    let mut hasher = Xxh3::new();
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let has_more = joined.fill(&mut buffer, BUFFER_BYTES);
        hasher.update(&buffer);
        if !has_more {
            return hasher.digest128();
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
            let expected = libphext::phext::checksum(text);
            assert_eq!(format!("{:032x}", checksum(&phext)), expected);
            assert_eq!(format!("{:032x}", checksum(&phext)), expected, "asked for again");
        }
    }
}
