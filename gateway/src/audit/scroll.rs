//! Reads which scroll a write names, by the worker's rules: `p` and `c` of the query or, if that has no `p`, of a form, as its
//! body streams. Without a `p` it is the unnamed phext. An invalid name or coordinate, or another tenant's, names nothing.

use http::HeaderMap;
use memchr::{memchr, memrchr};
use sq_shared::coordinate::Coordinate;
use sq_shared::form;
use sq_shared::limits::{COORDINATE_TEXT_BYTES, PHEXT_NAME_BYTES};
use sq_shared::phext_name::PhextName;
use sq_shared::tenant::TenantName;

/// How much of a value is kept: one byte more than the longest phext name or coordinate with every byte escaped, so that a value
/// that is too long stays too long.
const VALUE_BYTES: usize = 3 * LONGEST_BYTES + 1;

/// The longest phext name or coordinate.
const LONGEST_BYTES: usize =
    if PHEXT_NAME_BYTES > COORDINATE_TEXT_BYTES { PHEXT_NAME_BYTES } else { COORDINATE_TEXT_BYTES };

/// How much is kept of a pair that is not complete yet.
const PAIR_BYTES: usize = "%70=".len() + VALUE_BYTES;

pub(super) struct NamedScroll {
    values: Values,
    form: Option<Form>,
}

/// Values, still encoded. Of a repeated name the last one counts, valid or not, and a form may have millions: nothing is decoded
/// before the end.
#[derive(Clone, Default)]
struct Values {
    phext: Option<Vec<u8>>,
    coordinate: Option<Vec<u8>>,
}

/// A form that streams by.
#[derive(Default)]
struct Form {
    /// What the query names, in case the body is sent again.
    of_query: Values,
    /// A pair that is not complete yet.
    pair: Vec<u8>,
    is_whole: bool,
    /// It has other fields. If the query has a coordinate, the body is then a text and not a form.
    has_others: bool,
}

impl NamedScroll {
    /// Reads the query, and prepares for a form.
    pub(super) fn new(query: &[u8], headers: &HeaderMap) -> Self {
        let mut values = Values::default();
        // A fragment is not part of the query (RFC 3986, 3.5); the worker's parser cuts it off as well.
        values.read(query.split(|byte| *byte == b'#').next().unwrap_or_default());
        let takes_form = values.phext.is_none() && form::is_form(headers);
        let form = takes_form.then(|| Form { of_query: values.clone(), ..Form::default() });
        Self { values, form }
    }

    /// The body is sent again.
    pub(super) fn restart(&mut self) {
        if let Some(form) = &mut self.form {
            self.values = form.of_query.clone();
            *form = Form { of_query: std::mem::take(&mut form.of_query), ..Form::default() };
        }
    }

    /// Reads the body's next piece; `is_last` if the body is complete with it.
    pub(super) fn push(&mut self, piece: &[u8], is_last: bool) {
        let Some(form) = &mut self.form else { return };
        let (end, rest) = split_at_byte(piece, memchr(b'&', piece));
        form.keep(end);
        if let Some(rest) = rest {
            form.has_others |= self.values.read(&form.pair);
            form.pair.clear();
            match split_at_byte(rest, memrchr(b'&', rest)) {
                (whole, Some(begin)) => {
                    form.has_others |= self.values.read(whole);
                    form.keep(begin);
                }
                (begin, None) => form.keep(begin),
            }
        }
        if is_last {
            form.has_others |= self.values.read(&form.pair);
            form.pair.clear();
            form.is_whole = true;
            if form.has_others && form.of_query.coordinate.is_some() {
                self.values = form.of_query.clone();
            }
        }
    }

    /// The phext, unless its name is invalid or may still come in an incomplete form.
    pub(super) fn phext(&self) -> Option<PhextName> {
        let may_come = self.form.as_ref().is_some_and(|form| !form.is_whole);
        let unnamed = Some(&[][..]).filter(|_| !may_come);
        let named = self.values.phext.as_deref().or(unnamed)?;
        PhextName::parse(&form::decode(named)?).ok()
    }

    /// The coordinate, if it is valid and the tenant's.
    pub(super) fn coordinate(&self, tenant: &TenantName) -> Option<Coordinate> {
        Coordinate::parse(&form::decode(self.values.coordinate.as_ref()?)?, Some(tenant)).ok()
    }
}

impl Form {
    fn keep(&mut self, part: &[u8]) {
        let (kept, cut) = part.split_at(part.len().min(PAIR_BYTES.saturating_sub(self.pair.len())));
        self.pair.extend(kept);
        // No known name is this long.
        self.has_others |= cut.contains(&b'=') && !self.pair.contains(&b'=');
    }
}

impl Values {
    /// Reads complete pairs. Names are compared undecoded, because a single letter has only two spellings. Returns whether there
    /// is a field that neither names the scroll nor holds its text.
    fn read(&mut self, pairs: &[u8]) -> bool {
        let (mut phext, mut coordinate, mut has_others) = (None, None, false);
        for (name, value) in form::pairs(pairs) {
            match name {
                b"p" | b"%70" => phext = Some(value),
                b"c" | b"%63" => coordinate = Some(value),
                _ => has_others = has_others || !form::is_scroll_field(name),
            }
        }
        keep_value(&mut self.phext, phext);
        keep_value(&mut self.coordinate, coordinate);
        has_others
    }
}

fn keep_value(kept: &mut Option<Vec<u8>>, value: Option<&[u8]>) {
    if let Some(value) = value {
        let kept = kept.get_or_insert_default();
        kept.clear();
        kept.extend(value.iter().take(VALUE_BYTES));
    }
}

/// What is before and after the byte at this index; everything and `None` if there is no index.
fn split_at_byte(bytes: &[u8], index: Option<usize>) -> (&[u8], Option<&[u8]>) {
    let split = index.and_then(|index| Some((bytes.get(..index)?, bytes.get(index + 1..)?)));
    split.map_or((bytes, None), |(before, after)| (before, Some(after)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;
    use sq_tests::random::Random;
    use sq_worker::api::params::Params;

    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    /// The name of the unnamed phext in these tests.
    const UNNAMED: &str = "(unnamed)";

    fn named(query: &str, media_type: &'static str, body: &str, piece_bytes: usize) -> [Option<String>; 2] {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        let alice = "alice".parse().unwrap();
        let mut scroll = NamedScroll::new(query.as_bytes(), &headers);
        // A worker dies, and the body is sent again.
        scroll.push(b"p=gone&c=9.9.9/9.9.9/9.9.9&p=go", false);
        scroll.restart();
        if body.is_empty() {
            scroll.push(b"", true);
        }
        let mut sent = 0;
        for piece in body.as_bytes().chunks(piece_bytes) {
            sent += piece.len();
            scroll.push(piece, sent == body.len());
        }
        let name =
            |name: PhextName| if name == PhextName::default() { UNNAMED.into() } else { name.to_string() };
        [scroll.phext().map(name), scroll.coordinate(&alice).map(|at| at.to_string())]
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
            ("p=a&p=&c&c=1.1.1/1.1.1/1.1.1%0a", [UNNAMED, ""]),
            ("p=a#b&c=1.1.1/1.1.1/1.1.1", ["a", ""]),
            ("c=+01.1.1;2.1.1+", [UNNAMED, "1.1.1/2.1.1/1.1.1"]),
            ("", [UNNAMED, ""]),
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
                ("p=", "p=a", [UNNAMED, ""]),
                ("", "c=2.1.1&s=x", [UNNAMED, "2.1.1/1.1.1/1.1.1"]),
                ("", &format!("%70={escaped}"), [&longest, ""]),
                ("", &format!("p=a&%70={escaped}n"), ["", ""]),
                ("", &format!("{}p=a", "s=x&".repeat(500)), ["a", ""]),
                ("c=2.1.1", "https://x.org/?a=1&p=b", [UNNAMED, "2.1.1/1.1.1/1.1.1"]),
                ("c=2.1.1", &format!("{}=1&p=b", "x".repeat(PAIR_BYTES)), [UNNAMED, "2.1.1/1.1.1/1.1.1"]),
                ("c=2.1.1", "%73=x&cont%65nt=y&p=b&nothing", ["b", "2.1.1/1.1.1/1.1.1"]),
                ("", "https://x.org/?a=1&p=b&c=2.1.1", ["b", "2.1.1/1.1.1/1.1.1"]),
                ("", "p=b&%63=1.1.1/1.1.1/1.1.1&p=%61&%7=b&%70%=b&&=b&p&pp=b", ["a", "1.1.1/1.1.1/1.1.1"]),
            ] {
                assert_eq!(named(query, FORM, body, piece_bytes), texts(expected), "{query} {body}");
            }
        }
    }

    #[test]
    fn an_incomplete_form_names_no_phext() {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(FORM))]);
        let mut scroll = NamedScroll::new(b"c=1.1.1", &headers);
        assert_eq!(scroll.phext(), None);
        scroll.push(b"s=x&p=not", false);
        assert_eq!(scroll.phext(), None);
        scroll.push(b"", true);
        assert_eq!(scroll.phext().unwrap().as_str(), "not");
        scroll.restart();
        assert_eq!(scroll.phext(), None);
    }

    /// Texts in which pairs, their names, escapes and coordinates begin, end, and come twice.
    fn random_pairs(random: &mut Random) -> String {
        let parts =
            ["p", "c", "=", "&", "%70", "%63", "+", "%", "%2", "a", "p=a&", "&c=1.1.1/1.1.1/1.1.2", "&p="];
        (0..random.below(16)).map(|_| *random.pick(&parts)).collect()
    }

    #[test]
    fn the_line_names_what_the_worker_reads() {
        let alice = "alice".parse().unwrap();
        let (mut random, mut with_phext, mut with_coordinate) = (Random::new(1), 0, 0);
        for _ in 0..20_000 {
            let (query, body) = (random_pairs(&mut random), random_pairs(&mut random));
            // The worker refuses what is not UTF-8.
            let (Ok(of_query), Ok(of_form)) = (Params::parse(&query), Params::parse(&body)) else { continue };
            // `Input::take_form` of the worker.
            let mut names = form::pairs(body.as_bytes()).map(|(name, _)| name);
            let is_text = of_query.get("c").is_some() && !names.all(form::is_scroll_field);
            let (phext, coordinate) = match of_query.get("p") {
                phext @ Some(_) => (phext, of_query.get("c")),
                None if is_text => (None, of_query.get("c")),
                None => (of_form.get("p"), of_form.get("c").or(of_query.get("c"))),
            };
            let phext = match phext {
                None | Some("") => Some(UNNAMED.to_owned()),
                Some(text) => PhextName::parse(text).ok().map(|name| name.to_string()),
            };
            let coordinate = coordinate.and_then(|text| Coordinate::parse(text, Some(&alice)).ok());
            with_phext += usize::from(phext.is_some());
            with_coordinate += usize::from(coordinate.is_some());
            let expected = [phext, coordinate.map(|at| at.to_string())];
            assert_eq!(named(&query, FORM, &body, 1 + random.below(9)), expected, "{query} {body}");
        }
        assert!(with_phext > 1_000 && with_coordinate > 1_000, "{with_phext}, {with_coordinate}");
    }
}
