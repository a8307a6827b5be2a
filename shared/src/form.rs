//! Decodes queries and forms as SQ does. The worker takes its parameters from them, and the gateway's audit line the
//! scroll that a write names: both must read them alike.

use std::borrow::Cow;

use http::{HeaderMap, header};
use percent_encoding::percent_decode;

/// The type of a form without files.
const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// Names and values, still encoded: split at each `&`, each pair at its first `=`; a part without `=` is ignored. The
/// last of two equal names counts. (A loop over bytes: pairs are short, and `memchr` took ten times as long for a
/// body of nothing but `&`.)
pub fn pairs(encoded: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    encoded.split(|byte| *byte == b'&').filter_map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        parts.next().zip(parts.next())
    })
}

/// Decodes a name or a value: `+` is a space, `%XX` a byte; a malformed escape is kept. `None` when the result is not
/// UTF-8.
pub fn decode(encoded: &[u8]) -> Option<Cow<'_, str>> {
    // Most have nothing to decode.
    if !encoded.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return std::str::from_utf8(encoded).ok().map(Cow::Borrowed);
    }
    let spaced: Vec<u8> = encoded.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    String::from_utf8(percent_decode(&spaced).collect()).ok().map(Cow::Owned)
}

/// Whether a form's field names a scroll or has its text: `p`, `c`, `s` or `content`, however it is escaped. A text
/// that curl sends as a form has other names, if any.
pub fn is_scroll_field(encoded_name: &[u8]) -> bool {
    matches!(decode(encoded_name).as_deref(), Some("p" | "c" | "s" | "content"))
}

/// Whether a body is a form by its type. Its parameters count only when the query has no `p`.
pub fn is_form(headers: &HeaderMap) -> bool {
    media_types(headers).next().is_some_and(|media_type| media_type.eq_ignore_ascii_case(FORM))
}

/// The media types of the `Content-Type` fields, without parameters.
pub fn media_types(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(header::CONTENT_TYPE).iter();
    values.filter_map(|value| value.as_bytes().split(|byte| *byte == b';').next()).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_is_a_space_unless_it_is_escaped() {
        assert_eq!(decode(b"a+b%2B%zz%4").as_deref(), Some("a b+%zz%4"));
        assert_eq!(decode("plain ä".as_bytes()).as_deref(), Some("plain ä"));
        assert_eq!((decode(b"%ff"), decode(b"a\xff")), (None, None));
    }

    #[test]
    fn a_pair_ends_at_an_ampersand_and_its_name_at_the_first_equals_sign() {
        let read: Vec<(&[u8], &[u8])> = pairs(b"&a=b=c&&d&=e&f=").collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"a", b"b=c"), (b"", b"e"), (b"f", b"")];
        assert_eq!(read, expected);
        assert_eq!(pairs(b"").count(), 0);
    }

    #[test]
    fn a_form_is_known_by_its_type_whatever_parameters_it_has() {
        let is_form_of = |value: &'static str| {
            is_form(&HeaderMap::from_iter([(header::CONTENT_TYPE, http::HeaderValue::from_static(value))]))
        };
        assert!(is_form_of("application/x-www-form-urlencoded"));
        assert!(is_form_of("Application/X-WWW-Form-URLEncoded ; charset=utf-8"));
        assert!(!is_form_of("text/plain") && !is_form(&HeaderMap::new()));
    }
}
