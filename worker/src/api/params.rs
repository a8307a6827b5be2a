//! The parameters of a query or a form, decoded as SQ does it: split at `&`, each pair at its first
//! `=`, a pair without one ignored, `+` a space, then percent-decoding in which a malformed escape
//! stays as it is. Of a name that comes twice the last one counts.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;

/// Names and values.
#[derive(Debug, Default)]
pub struct Params(HashMap<String, String>);

/// A name or a value is not UTF-8 once it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUtf8;

impl Params {
    /// Decodes a query or a form.
    ///
    /// # Errors
    /// A name or a value is not UTF-8.
    pub fn parse(encoded: &str) -> Result<Self, NotUtf8> {
        let mut params = HashMap::new();
        for (name, value) in encoded.split('&').filter_map(|pair| pair.split_once('=')) {
            params.insert(decode(name)?, decode(value)?);
        }
        Ok(Self(params))
    }

    /// The value of a name, which may be empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Takes the value of a name out.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Sets the value of a name.
    pub fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }
}

fn decode(encoded: &str) -> Result<String, NotUtf8> {
    let spaced = encoded.replace('+', " ");
    let decoded: Vec<u8> = percent_decode_str(&spaced).collect();
    String::from_utf8(decoded).map_err(|_| NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_as_sq_does() {
        let params = Params::parse("p=a+b&c=%31%2e1&s=x=y&s=%zz%4&flag&=e&t=").unwrap();
        assert_eq!(params.get("p"), Some("a b"));
        assert_eq!(params.get("c"), Some("1.1"));
        assert_eq!(params.get("s"), Some("%zz%4"));
        assert_eq!(params.get("flag"), None);
        assert_eq!(params.get(""), Some("e"));
        assert_eq!(params.get("t"), Some(""));
        assert_eq!(Params::parse("s=%ff").unwrap_err(), NotUtf8);
        assert_eq!(Params::parse("%fe=1").unwrap_err(), NotUtf8);
        assert_eq!(Params::parse("s=%2B+%2b").unwrap().get("s"), Some("+ +"));
    }
}
