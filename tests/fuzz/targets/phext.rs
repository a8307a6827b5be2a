//! The text of a phext: read as libphext reads it, and written back so that it reads the same.

use libphext::phext::phokenize;
use sq_shared::coordinate::Coordinate;
use sq_worker::store::{Phext, TextDamage};

pub(crate) fn check(data: &[u8]) {
    let text = match std::str::from_utf8(data) {
        Ok(text) => text,
        Err(error) => {
            let expected = TextDamage::NotUtf8 { offset: error.valid_up_to() };
            assert_eq!(Phext::parse(data).unwrap_err(), expected);
            return;
        }
    };
    let phext = Phext::parse(data).unwrap();
    let theirs: Vec<(Coordinate, String)> = phokenize(text)
        .into_iter()
        .filter(|run| !run.scroll.is_empty())
        .map(|run| (Coordinate::parse(&run.coord.to_string(), None).unwrap(), run.scroll))
        .collect();
    assert_eq!(scrolls(&phext), theirs);
    let joined = phext.join();
    assert_eq!(scrolls(&Phext::parse(joined.as_bytes()).unwrap()), theirs);
    assert_eq!(phext.file_bytes(), joined.len() as u64);
    assert_eq!(phext.scroll_count(), theirs.len());
    for (at, scroll) in &theirs {
        assert_eq!(phext.scroll(at), scroll);
    }
}

pub(crate) fn scrolls(phext: &Phext) -> Vec<(Coordinate, String)> {
    phext.iter().map(|(at, text)| (*at, text.to_owned())).collect()
}
