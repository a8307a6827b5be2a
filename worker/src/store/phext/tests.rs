//! The phext against a plain map, and against libphext.

use std::collections::BTreeMap;
use std::collections::HashMap;

use libphext::phext as oracle;
use proptest::prelude::*;

use super::*;
use crate::store::phext::page::PAGE_BYTES;

type Model = BTreeMap<Coordinate, String>;

fn place() -> impl Strategy<Value = Coordinate> {
    let parts = prop::array::uniform9(prop_oneof![6 => Just(1_u32), 2 => 2..4_u32, 1 => 1..300_u32]);
    parts.prop_map(|parts| Coordinate::from_parts(parts).unwrap())
}

/// Short ones, and so long ones that pages split, and that some scrolls fill whole pages.
fn text() -> impl Strategy<Value = String> {
    let filler = |count| "\u{e4}bc".repeat(count);
    prop_oneof![
        4 => "[a-z\n\u{e4}]{0,4}".prop_map(String::from),
        4 => (200..1500_usize).prop_map(filler),
        1 => (1500..6000_usize).prop_map(filler),
    ]
}

fn edits() -> impl Strategy<Value = Vec<(Coordinate, Edit)>> {
    let edit = prop_oneof![
        3 => text().prop_map(Edit::Append),
        4 => text().prop_map(Edit::Replace),
        2 => Just(Edit::Remove),
    ];
    // Few places, so that scrolls are met again.
    prop::collection::vec(place(), 1..30).prop_flat_map(move |places| {
        prop::collection::vec((prop::sample::select(places), edit.clone()), 1..60)
    })
}

fn model_apply(model: &mut Model, at: Coordinate, edit: &Edit) {
    let scroll = model.entry(at).or_default();
    match edit {
        Edit::Append(text) => scroll.push_str(text),
        Edit::Replace(text) => scroll.clone_from(text),
        Edit::Remove => scroll.clear(),
    }
    model.retain(|_, text| !text.is_empty());
}

impl Phext {
    fn scrolls(&self) -> Model {
        self.iter().map(|(at, text)| (*at, text.to_owned())).collect()
    }
}

fn owned<'a>(scrolls: impl Iterator<Item = (&'a Coordinate, &'a str)>) -> Vec<(Coordinate, String)> {
    scrolls.map(|(at, text)| (*at, text.to_owned())).collect()
}

/// All that is counted along the way equals a count from the beginning, and pages are as they should be.
fn assert_counts(phext: &Phext) {
    assert_eq!(phext.file_bytes, phext.join().len() as u64);
    assert_eq!(phext.scroll_count, phext.iter().count());
    assert_eq!(phext.memory_bytes, phext.pages.values().map(|page| page.memory_bytes()).sum::<u64>());
    for (key, page) in phext.pages.iter() {
        assert_eq!(page.first(), Some(*key));
        let used_bytes = page.text().len() + page.scrolls_from(0).count() * page::ENTRY_BYTES;
        assert!(used_bytes <= PAGE_BYTES || page.scrolls_from(0).count() == 1);
    }
}

fn implode(model: &Model) -> String {
    let scrolls: HashMap<_, _> =
        model.iter().map(|(at, text)| (oracle::to_coordinate(&at.to_string()), text.clone())).collect();
    oracle::implode(scrolls)
}

fn parse_in(text: &[u8], sizes: &[usize]) -> Result<Phext, TextDamage> {
    parse_with(PhextParser::default(), text, sizes)
}

fn parse_with(mut parser: PhextParser, text: &[u8], sizes: &[usize]) -> Result<Phext, TextDamage> {
    let (mut rest, mut sizes) = (text, sizes.iter().cycle());
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        parser.push(chunk)?;
        rest = behind;
    }
    parser.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_edits_equal_a_plain_map(edits in edits(), start in place(), end in place()) {
        let (mut phext, mut model) = (Phext::default(), Model::new());
        let mut snapshots = Vec::new();
        for (index, (at, edit)) in edits.into_iter().enumerate() {
            let (bytes_after, is_unchanged) = (phext.file_bytes_after(&at, &edit), phext.is_unchanged_by(&at, &edit));
            let before = phext.revision();
            phext.apply(at, &edit);
            let model_before = model.clone();
            model_apply(&mut model, at, &edit);
            assert_counts(&phext);
            prop_assert_eq!(phext.file_bytes(), bytes_after);
            prop_assert_eq!(model_before == model, is_unchanged);
            prop_assert_eq!(before == phext.revision(), is_unchanged);
            let text = model.get(&at).map_or("", String::as_str);
            prop_assert_eq!(phext.scroll(&at), text);
            prop_assert!(phext.scroll_handle(&at).as_str() == text);
            if index % 7 == 0 {
                snapshots.push((phext.clone(), phext.scroll_handle(&at), at, model.clone()));
            }
        }
        prop_assert_eq!(phext.scrolls(), model.clone());
        prop_assert_eq!(phext.join(), implode(&model));
        for (snapshot, handle, at, model) in snapshots {
            prop_assert_eq!(handle.as_str(), model.get(&at).map_or("", String::as_str));
            prop_assert_eq!(snapshot.scrolls(), model);
        }
        let (start, end) = (start.min(end), start.max(end));
        let bounds = [Bound::Unbounded, Bound::Included(start), Bound::Excluded(start)];
        for (start, end) in bounds.into_iter().flat_map(|start| {
            [Bound::Unbounded, Bound::Included(end), Bound::Excluded(end)].map(|end| (start, end))
        }) {
            let all = phext.iter().filter(|(at, _)| (start, end).contains(at));
            prop_assert_eq!(owned(phext.range((start, end))), owned(all));
            let walked = phext.cursor((start, end)).map(|(at, scroll)| (at, scroll.as_str().to_owned()));
            prop_assert_eq!(walked.collect::<Vec<_>>(), owned(phext.range((start, end))));
        }
    }

    #[test]
    fn what_is_read_in_any_pieces_is_what_libphext_reads(
        text in "([ab\n\u{1f506}\u{1}\u{17}-\u{1a}\u{1c}-\u{1f}]|[a\u{e4}\u{20ac}]{200,900}){0,60}",
        sizes in prop::collection::vec(1..5000_usize, 1..20),
        tiny in prop::collection::vec(1..4_usize, 1..20),
    ) {
        let expected: Model = oracle::phokenize(&text)
            .into_iter()
            .filter(|run| !run.scroll.is_empty())
            .map(|run| (Coordinate::parse(&run.coord.to_string(), None).unwrap(), run.scroll))
            .collect();
        for sizes in [sizes, tiny] {
            let phext = parse_in(text.as_bytes(), &sizes).unwrap();
            assert_counts(&phext);
            prop_assert_eq!(phext.scrolls(), expected.clone());
            prop_assert_eq!(phext.join(), implode(&expected));
            let counted = parse_with(PhextParser::counting(), text.as_bytes(), &sizes).unwrap();
            prop_assert_eq!(counted.scroll_count(), phext.scroll_count());
            prop_assert_eq!((counted.memory_bytes(), counted.iter().count()), (0, 0));
        }
    }

    #[test]
    fn bad_bytes_are_found_in_any_pieces(
        bytes in prop::collection::vec(
            prop_oneof![Just(b'a'), 0x80..0xc5_u8, Just(0xe2), Just(0x82), Just(0xac), Just(0xf0), Just(0x9f)], 0..12),
        sizes in prop::collection::vec(1..5_usize, 1..5),
    ) {
        let expected = std::str::from_utf8(&bytes).map_err(|error| TextDamage::NotUtf8 { offset: error.valid_up_to() });
        let parsed = parse_in(&bytes, &sizes);
        let counted = parse_with(PhextParser::counting(), &bytes, &sizes);
        prop_assert_eq!(counted.map(|_| ()), parsed.clone().map(|_| ()));
        prop_assert_eq!(parsed.map(|phext| phext.join()), expected.map(str::to_owned));
    }
}

#[test]
fn a_scroll_at_the_limit_and_one_past() {
    let breaks = |count| format!("{}a", "\x17".repeat(count)).into_bytes();
    // As many breaks as lead to the last coordinate would be 4 GiB: the first ones are taken as read.
    let behind = |parts: [u64; 9], text: &[u8]| {
        let mut parser = PhextParser::at(parts);
        parser.push(text).and_then(|()| parser.finish())
    };
    let last = behind([1, 1, 1, 1, 1, 1, 1, 1, u64::from(u32::MAX) - 1], &breaks(1)).unwrap();
    assert_eq!(last.iter().next().unwrap().0.largest_part(), u32::MAX);
    for text in [&b"a"[..], &breaks(1), &breaks(200_000)] {
        let offset = text.len() - 1;
        let past = behind([1, 1, 1, 1, 1, 1, 1, 1, u64::from(u32::MAX) + 1], text);
        assert_eq!(past.unwrap_err(), TextDamage::BeyondLimit { offset });
    }
    assert_eq!(Phext::parse(b"ab\xff").unwrap_err(), TextDamage::NotUtf8 { offset: 2 });
    assert_eq!(Phext::parse(&vec![0x17; 200_000]).unwrap().scroll_count(), 0);
    assert_eq!(Phext::parse(&breaks(200_000)).unwrap().join().as_bytes(), breaks(200_000));
    let far = Phext::parse(&breaks(99_998)).unwrap();
    let mut joined = far.joined();
    let mut buffer = Vec::new();
    assert!(joined.fill(&mut buffer, 1000));
    assert_eq!(buffer.len(), 1000, "a far scroll does not make a buffer larger");
}

#[test]
fn memory_is_at_most_half_as_much_again_as_the_file() {
    let numbered =
        |index: u32| Coordinate::from_parts([1, 1, 1, 1, 1, 1, 1, 1 + index / 100, 1 + index % 100]).unwrap();
    let assert_small = |phext: &Phext, when: &str| {
        let (memory, file) = (phext.memory_bytes(), phext.file_bytes());
        assert!(2 * memory <= 3 * file, "{when}: {memory} bytes for a file of {file}");
    };
    let text = "x".repeat(150);
    let mut written = Phext::default();
    for index in 0..20_000_u32 {
        // In an order that jumps to and fro.
        written.apply(numbered(index * 7_919 % 20_000), &Edit::Replace(text.clone()));
    }
    assert_counts(&written);
    assert_small(&written, "written");
    assert_small(&Phext::parse(written.join().as_bytes()).unwrap(), "read");
    for index in 0..20_000 {
        written.apply(numbered(index), &Edit::Append("and some more".into()));
    }
    assert_small(&written, "longer");
    for index in 0..20_000 {
        written.apply(numbered(index), &Edit::Replace("y".repeat(130)));
    }
    assert_small(&written, "shorter");

    let mut log = Phext::default();
    for _ in 0..20_000 {
        log.apply(Coordinate::ORIGIN, &Edit::Append(text.clone()));
    }
    assert_small(&log, "one long scroll");
    log.apply(numbered(1), &Edit::Replace("beside it".into()));
    log.apply(Coordinate::ORIGIN, &Edit::Replace(text.repeat(20)));
    assert_small(&log, "shortened");
}

#[test]
fn a_snapshot_shares_what_has_not_changed() {
    let text: Vec<String> = (0..1000).map(|_| "x".repeat(1000)).collect();
    let mut phext = Phext::parse(text.join("\x17").as_bytes()).unwrap();
    let snapshot = phext.clone();
    phext.apply(Coordinate::ORIGIN, &Edit::Append("!".into()));
    let is_shared = |(one, other): &(&Arc<Page>, &Arc<Page>)| Arc::ptr_eq(one, other);
    let pages = phext.pages.values().zip(snapshot.pages.values());
    assert_eq!(pages.filter(|pair| !is_shared(pair)).count(), 1);
}

#[test]
fn a_long_scroll_comes_in_fragments() {
    let text = "\u{20ac}".repeat(40_000);
    let phext = Phext::parse(text.as_bytes()).unwrap();
    let mut fragments = phext.scroll_handle(&Coordinate::ORIGIN).fragments();
    let mut pieces = Vec::new();
    while let Some(fragment) = fragments.next_fragment() {
        pieces.push(fragment.to_owned());
    }
    assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= 64 * 1024));
    assert_eq!(pieces.concat(), text);
}
