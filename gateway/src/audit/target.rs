//! Which scroll a write names, by the worker's rules: `p` and `c` of the query or, when that has no `p`, of a
//! form, as its body goes by. What is no phext's name or no coordinate of the tenant's names nothing.

use http::HeaderMap;
use sq_shared::coordinate::Coordinate;
use sq_shared::form;
use sq_shared::limits::PHEXT_NAME_BYTES;
use sq_shared::phext_name::PhextName;
use sq_shared::tenant::TenantName;

/// What is kept of a form's pair. A name of a phext or a coordinate is shorter, even when each byte of
/// `p=` and of it is escaped; what is longer stays too long.
const PAIR_BYTES: usize = "%70=".len() + 3 * PHEXT_NAME_BYTES + 1;

/// The scroll that a write names.
pub(super) struct Target {
    names: Names,
    form: Option<Form>,
}

/// Of a name that comes twice the last one counts, be it right or wrong.
#[derive(Clone, Default)]
struct Names {
    phext: Option<Option<PhextName>>,
    coordinate: Option<Option<Coordinate>>,
}

/// A form that goes by.
struct Form {
    /// What the query names, for when the form begins again.
    of_query: Names,
    pair: Vec<u8>,
}

impl Target {
    /// Reads the query, and makes ready for a form.
    pub(super) fn new(query: &[u8], headers: &HeaderMap, tenant: &TenantName) -> Self {
        let mut names = Names::default();
        // What comes after it is no query (RFC 3986, 3.5); the worker's parser cuts it off as well.
        let query = query.split(|byte| *byte == b'#').next().unwrap_or_default();
        query.split(|byte| *byte == b'&').for_each(|pair| names.read(pair, tenant));
        let takes_form = names.phext.is_none() && form::is_form(headers);
        let form = takes_form.then(|| Form { of_query: names.clone(), pair: Vec::new() });
        Self { names, form }
    }

    /// The body begins again.
    pub(super) fn restart(&mut self) {
        if let Some(form) = &mut self.form {
            self.names = form.of_query.clone();
            form.pair.clear();
        }
    }

    /// The body's next piece; `is_last` when the body is whole with it.
    pub(super) fn push(&mut self, piece: &[u8], is_last: bool, tenant: &TenantName) {
        let Some(form) = &mut self.form else { return };
        let mut parts = piece.split(|byte| *byte == b'&').peekable();
        while let Some(part) = parts.next() {
            let room = PAIR_BYTES.saturating_sub(form.pair.len());
            form.pair.extend(part.iter().take(room));
            if parts.peek().is_some() || is_last {
                self.names.read(&form.pair, tenant);
                form.pair.clear();
            }
        }
    }

    pub(super) fn phext(&self) -> Option<&PhextName> {
        self.names.phext.as_ref().and_then(Option::as_ref)
    }

    pub(super) fn coordinate(&self) -> Option<Coordinate> {
        self.names.coordinate.flatten()
    }
}

impl Names {
    fn read(&mut self, pair: &[u8], tenant: &TenantName) {
        let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { return };
        let (name, value) = pair.split_at(equals);
        let value = || form::decode(value.get(1..).unwrap_or_default());
        match form::decode(name).as_deref() {
            Some("p") => self.phext = Some(value().and_then(|text| PhextName::parse(&text).ok())),
            Some("c") => {
                self.coordinate = Some(value().and_then(|text| Coordinate::parse(&text, Some(tenant)).ok()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;

    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    fn named(query: &str, media_type: &'static str, body: &str, piece_bytes: usize) -> [Option<String>; 2] {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        let alice = "alice".parse().unwrap();
        let mut target = Target::new(query.as_bytes(), &headers, &alice);
        // As when a worker dies, and the body is sent again.
        target.push(b"p=gone&c=9.9.9/9.9.9/9.9.9&p=go", false, &alice);
        target.restart();
        let mut sent = 0;
        for piece in body.as_bytes().chunks(piece_bytes) {
            sent += piece.len();
            target.push(piece, sent == body.len(), &alice);
        }
        [target.phext().map(ToString::to_string), target.coordinate().map(|at| at.to_string())]
    }

    fn texts<const N: usize>(texts: [&str; N]) -> [Option<String>; N] {
        texts.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()))
    }

    #[test]
    fn the_query_names_the_scroll_in_every_spelling() {
        for (query, expected) in [
            ("p=a&c=1.1.1/1.1.1/1.1.2", ["a", "1.1.1/1.1.1/1.1.2"]),
            ("c=alice.1.1.1;1.1.1;1.1.2&s=x&%70=a+%C3%A4", ["a ä", "1.1.1/1.1.1/1.1.2"]),
            ("p=a&p=b&c=1.1.1/1.1.1/1.1.1&c=junk", ["b", ""]),
            ("p=../a&c=bob.1.1.1/1.1.1/1.1.1", ["", ""]),
            ("p=a&p=&c&c=1.1.1/1.1.1/1.1.1%0a", ["", ""]),
            ("p=a#b&c=1.1.1/1.1.1/1.1.1", ["a", ""]),
            ("", ["", ""]),
        ] {
            assert_eq!(named(query, "text/plain", "p=b&c=2.1.1/1.1.1/1.1.1", 8), texts(expected), "{query}");
        }
    }

    #[test]
    fn a_form_names_it_when_the_query_has_no_p() {
        let longest = "n".repeat(PHEXT_NAME_BYTES);
        let escaped: String = longest.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for piece_bytes in [1, 2, 7, 10_000] {
            for (query, body, expected) in [
                ("", "p=a&c=alice.1.1.1/1.1.1/1.1.2&s=x", ["a", "1.1.1/1.1.1/1.1.2"]),
                ("c=2.1.1/1.1.1/1.1.1", "s=long&p=a", ["a", "2.1.1/1.1.1/1.1.1"]),
                ("c=2.1.1/1.1.1/1.1.1", "c=3.1.1/1.1.1/1.1.1&p=a&p=b", ["b", "3.1.1/1.1.1/1.1.1"]),
                ("p=q", "p=a&c=2.1.1/1.1.1/1.1.1", ["q", ""]),
                ("p=", "p=a", ["", ""]),
                ("", &format!("%70={escaped}"), [&longest, ""]),
                ("", &format!("p=a&%70={escaped}n"), ["", ""]),
                ("", &format!("{}p=a", "s=x&".repeat(500)), ["a", ""]),
            ] {
                assert_eq!(named(query, FORM, body, piece_bytes), texts(expected), "{query} {body}");
            }
        }
    }
}
