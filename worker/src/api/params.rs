//! The parameters of a query or a form, decoded as SQ does it ([`form`]). If a name is repeated, the last value counts. A
//! name that no command reads must be UTF-8, and is dropped.

use percent_encoding::percent_decode_str;
use sq_shared::form;

/// Every name that a command reads. Others are not kept, because a form of millions of short pairs would take many times
/// its own length.
const NAMES: [&str; 9] = ["p", "c", "s", "content", "from", "to", "set", "limit", "algo"];

/// The values, each at the index of its name in [`NAMES`].
#[derive(Debug, Default)]
pub struct Params([Option<String>; NAMES.len()]);

/// A name or a value is not UTF-8 once it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUtf8 {
    /// Where the first invalid sequence begins in the decoded bytes of the whole query or form.
    pub offset: usize,
}

impl Params {
    /// Decodes a query or a form.
    ///
    /// # Errors
    /// A name or a value is not UTF-8.
    pub fn parse(encoded: &str) -> Result<Self, NotUtf8> {
        let mut params = Self::default();
        for (name, value) in form::pairs(encoded.as_bytes()) {
            let decoded = form::decode(name).and_then(|name| Some((name, form::decode(value)?)));
            let (name, value) = decoded.ok_or_else(|| NotUtf8 { offset: first_invalid(encoded) })?;
            params.set(&name, value.into_owned());
        }
        Ok(params)
    }

    /// The value of a name, which may be empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(index(name)?)?.as_deref()
    }

    /// Removes and returns the value of a name.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.get_mut(index(name)?)?.take()
    }

    /// Sets the value of a name, if a command reads it.
    pub(super) fn set(&mut self, name: &str, value: String) {
        if let Some(slot) = index(name).and_then(|index| self.0.get_mut(index)) {
            *slot = Some(value);
        }
    }
}

fn index(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

/// The offset of the first byte that is not UTF-8 after percent-decoding.
fn first_invalid(encoded: &str) -> usize {
    let decoded: Vec<u8> = percent_decode_str(encoded).collect();
    std::str::from_utf8(&decoded).map_or_else(|error| error.valid_up_to(), str::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_as_sq_does() {
        let params = Params::parse("p=a+b&c=%31%2e1&s=x=y&s=%zz%4&set&=e&to=&other=1").unwrap();
        assert_eq!(params.get("p"), Some("a b"));
        assert_eq!(params.get("c"), Some("1.1"));
        assert_eq!(params.get("s"), Some("%zz%4"));
        assert_eq!(params.get("set"), None);
        assert_eq!(params.get("to"), Some(""));
        assert_eq!((params.get(""), params.get("other")), (None, None));
        assert_eq!(params.0.iter().flatten().count(), 4);
        assert_eq!(Params::parse("s=%ff").unwrap_err(), NotUtf8 { offset: 2 });
        assert_eq!(Params::parse("p=%41+%C3%A4&other=a%C3&c=1").unwrap_err(), NotUtf8 { offset: 14 });
        assert_eq!(Params::parse("%fe=1").unwrap_err(), NotUtf8 { offset: 0 });
        assert_eq!(Params::parse("s=%2B+%2b").unwrap().get("s"), Some("+ +"));
    }
}
