//! A set of bytes as a lookup table. Comparing each byte of a head with fifteen others would cost more than the rest of the
//! check.

/// A set of bytes.
pub(super) struct ByteSet([bool; 256]);

impl ByteSet {
    /// The ASCII letters and digits, and the given bytes.
    #[expect(
        clippy::indexing_slicing,
        reason = "a byte cannot exceed 256 entries, and a const fn cannot use `get`"
    )]
    pub(super) const fn alphanumerics_and(others: &[u8]) -> Self {
        let mut has = [false; 256];
        let mut byte = 0;
        while byte < has.len() {
            has[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let mut index = 0;
        while index < others.len() {
            has[others[index] as usize] = true;
            index += 1;
        }
        Self(has)
    }

    /// Whether the byte is in the set.
    pub(super) fn contains(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_contains_letters_digits_and_the_given_bytes() {
        let set = ByteSet::alphanumerics_and(b"-_");
        let contained: Vec<u8> = (0..=255).filter(|byte| set.contains(*byte)).collect();
        assert_eq!(contained, b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz");
    }
}
