//! Computes the checksum of a whole phext, and parses checksums.

use std::cell::RefCell;
use std::collections::VecDeque;

use xxhash_rust::xxh3::Xxh3;

use crate::store::{Phext, Revision};

/// How many bytes are hashed at once. A phext up to this size is not cached.
const BUFFER_BYTES: usize = 64 * 1024;

/// How many checksums of long phexts are cached. Computing one takes some 20 ms per 64 MiB.
const MAX_CACHED: usize = 64;

thread_local! {
    /// The latest checksums of long phexts. Never stale, because two different phexts never have the same revision. Per thread
    /// is enough: a worker runs all commands on one.
    static CACHE: RefCell<VecDeque<(Revision, u128)>> = const { RefCell::new(VecDeque::new()) };
}

/// The XXH3-128 of the phext as a file, without joining it in memory.
pub(super) fn checksum(phext: &Phext) -> u128 {
    if phext.file_bytes() <= BUFFER_BYTES as u64 {
        return computed(phext);
    }
    let revision = phext.revision();
    let is_same = |(known, _): &&(Revision, u128)| *known == revision;
    let cached = CACHE.with_borrow(|cache| cache.iter().find(is_same).map(|(_, checksum)| *checksum));
    cached.unwrap_or_else(|| {
        let checksum = computed(phext);
        CACHE.with_borrow_mut(|cache| {
            cache.truncate(MAX_CACHED - 1);
            cache.push_front((revision, checksum));
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

/// Parses a checksum as `checksum` and an `ETag` have it: exactly 32 hexadecimal digits.
pub(crate) fn parse_checksum(text: &str) -> Option<u128> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_equals_libphexts() {
        for text in ["", "a", "a\x17b\x01c", &"long ".repeat(50_000), &"\x17 ".repeat(90_000)] {
            let phext = Phext::parse(text.as_bytes()).unwrap();
            let expected = libphext::phext::checksum(text);
            assert_eq!(format!("{:032x}", checksum(&phext)), expected);
            assert_eq!(format!("{:032x}", checksum(&phext)), expected, "cached");
        }
    }
}
