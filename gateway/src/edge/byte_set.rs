//! Which bytes a part of a head may have, as a table: a look for each byte, where a comparison with each of
//! fifteen would cost more than all the rest of the check.

/// Some of the 256 bytes.
pub(super) struct ByteSet([bool; 256]);

impl ByteSet {
    /// The ASCII letters and digits, and these.
    #[expect(
        clippy::indexing_slicing,
        reason = "a byte is an index of 256 places; a const fn knows no other way"
    )]
    pub(super) const fn of_alphanumerics_and(others: &[u8]) -> Self {
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

    /// Whether the byte is one of them.
    pub(super) fn has(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_letters_digits_and_what_it_was_given() {
        let set = ByteSet::of_alphanumerics_and(b"-_");
        let had: Vec<u8> = (0..=255).filter(|byte| set.has(*byte)).collect();
        assert_eq!(had, b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz");
    }
}
