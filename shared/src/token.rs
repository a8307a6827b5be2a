//! Tokens and their digests. A token is a secret: it cannot be printed, cloned or serialised, and
//! its memory is wiped when it is dropped. What is stored and compared is its SHA-256.

use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::limits::TOKEN_BYTES;

/// What a new token begins with.
pub const TOKEN_PREFIX: &str = "pmb-v1-";

/// A key that a client sent, or that was just made: 1 to 512 visible ASCII characters.
pub struct BearerToken(Zeroizing<String>);

/// Why a text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 1 to 512 visible ASCII characters")]
pub struct InvalidToken;

impl BearerToken {
    /// Takes a token as a client sent it.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidToken> {
        if bytes.is_empty() || bytes.len() > TOKEN_BYTES || !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(InvalidToken);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| InvalidToken)?;
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// Makes a new token: `pmb-v1-` and 32 hexadecimal digits from the operating system.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut random = Zeroizing::new([0_u8; 16]);
        getrandom::fill(random.as_mut_slice())?;
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_PREFIX.len() + 32));
        text.push_str(TOKEN_PREFIX);
        // Writing to a string does not fail.
        random.iter().for_each(|byte| _ = write!(text, "{byte:02x}"));
        Ok(Self(text))
    }

    /// The SHA-256 of the whole token.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The secret itself, for the one header or file that must hold it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(redacted)")
    }
}

/// The SHA-256 of a token: what the registry stores and what a lookup uses.
#[derive(Clone, Copy)]
pub struct TokenDigest([u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is the 64 hexadecimal digits that sha256sum prints for the key")]
pub struct InvalidDigest;

impl FromStr for TokenDigest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let digits = text.as_bytes();
        let mut digest = [0; 32];
        if digits.len() != 2 * digest.len() {
            return Err(InvalidDigest);
        }
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = match pair {
                [high, low] => hex_value(*high)? << 4 | hex_value(*low)?,
                _ => return Err(InvalidDigest),
            };
        }
        Ok(Self(digest))
    }
}

fn hex_value(digit: u8) -> Result<u8, InvalidDigest> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).ok_or(InvalidDigest)
}

impl PartialEq for TokenDigest {
    /// Takes the same time wherever the first difference is.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenDigest {}

impl Hash for TokenDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for TokenDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for TokenDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_at_the_limit_and_one_past() {
        assert!(BearerToken::parse(&[b'k'; 512]).is_ok());
        assert!(BearerToken::parse(&[b'k'; 513]).is_err());
        for bad in [&b""[..], b"a b", b"a\t", b"\xc3\xa4", b"a\0", b"a\x7f"] {
            assert!(BearerToken::parse(bad).is_err());
        }
    }

    #[test]
    fn a_new_token_has_the_form_of_the_contract_and_is_not_printed() {
        let token = BearerToken::generate().unwrap();
        let digits = token.expose().strip_prefix("pmb-v1-").unwrap();
        assert_eq!(digits.len(), 32);
        assert!(digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        assert!(!format!("{token:?}").contains(digits));
        assert_ne!(token.digest(), BearerToken::generate().unwrap().digest());
    }

    #[test]
    fn a_digest_is_that_of_sha256sum() {
        let token = BearerToken::parse(b"abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(token.digest().to_string(), expected);
        assert_eq!(expected.parse(), Ok(token.digest()));
        assert_eq!("ba78".parse::<TokenDigest>(), Err(InvalidDigest));
        assert_eq!(expected.replace('b', "g").parse::<TokenDigest>(), Err(InvalidDigest));
    }
}
