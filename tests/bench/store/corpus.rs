//! The phexts that are measured: text that looks like prose and is the same in every run.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sq_tests::random::Random;

/// What MB means in this bench.
pub(crate) const MEGABYTE: usize = 1_000_000;

/// Just above the size up to which a phext's own file is brought up to date before the answer (1 MiB).
pub(crate) const JUST_JOURNALLED_BYTES: usize = 1_100_000;

/// The phext's name in every data directory.
pub(crate) const NAME: &str = "notes";

/// The usual scroll, and the one that shows what a scroll costs beside its text.
const LONG_SCROLL_BYTES: usize = 1000;
const SHORT_SCROLL_BYTES: usize = 150;

/// How many scrolls a section has, sections a chapter, and chapters a book.
const FANOUT: usize = 50;

/// A line of the text ends after so many words.
const LINE_WORDS: usize = 11;

const WORDS: &[&str] = &[
    "a",
    "archive",
    "between",
    "coordinate",
    "each",
    "every",
    "far",
    "horizon",
    "in",
    "it",
    "letters",
    "light",
    "made",
    "of",
    "page",
    "quiet",
    "scroll",
    "stays",
    "the",
    "then",
    "this",
    "volume",
    "where",
    "writing",
];

/// A phext as a file, from which each server gets its own copy.
#[derive(Debug)]
pub(crate) struct Corpus {
    folder: PathBuf,
    /// Tells it from the others in names of folders.
    label: String,
    /// The size that was asked for, in bytes.
    pub(crate) bytes: usize,
    /// How long its scrolls are, about.
    pub(crate) scroll_bytes: usize,
    /// How many scrolls it has.
    pub(crate) scrolls: usize,
}

impl Corpus {
    /// A phext of the usual scrolls.
    pub(crate) fn long_scrolls(folder: &Path, bytes: usize) -> Self {
        Self::write(folder, bytes, LONG_SCROLL_BYTES)
    }

    /// A phext of short scrolls.
    pub(crate) fn short_scrolls(folder: &Path, bytes: usize) -> Self {
        Self::write(folder, bytes, SHORT_SCROLL_BYTES)
    }

    fn write(folder: &Path, bytes: usize, scroll_bytes: usize) -> Self {
        let label = format!("{bytes}-{scroll_bytes}");
        let mut corpus = Self { folder: folder.to_owned(), label, bytes, scroll_bytes, scrolls: 0 };
        let mut file = BufWriter::new(File::create(corpus.path()).expect("a file for the phext"));
        let mut random = Random::new(u64::try_from(bytes + scroll_bytes).expect("a small number"));
        let (mut text, mut written) = (String::new(), 0);
        while written < bytes {
            if corpus.scrolls > 0 {
                file.write_all(&[break_before(corpus.scrolls)]).expect("room for the phext");
            }
            let length = scroll_bytes * (75 + random.below(51)) / 100;
            prose(&mut random, length.clamp(1, (bytes - written).max(1)), &mut text);
            file.write_all(text.as_bytes()).expect("room for the phext");
            written += text.len() + 1;
            corpus.scrolls += 1;
        }
        file.into_inner().expect("the whole phext").sync_all().expect("a synced phext");
        corpus
    }

    /// A data directory with a copy of it, synced, so that no server writes back what the bench has written.
    pub(crate) fn data_dir(&self, owner: &str) -> PathBuf {
        let data_dir = self.folder.join(format!("{owner}-{}", self.label)).join("data");
        fs::create_dir_all(&data_dir).expect("a data directory");
        let copy = phext_file(&data_dir);
        fs::copy(self.path(), &copy).expect("a copy of the phext");
        File::open(copy).and_then(|copy| copy.sync_all()).expect("a synced phext");
        data_dir
    }

    /// Whether the peer is not asked: it knows no such border.
    pub(crate) fn is_ours_only(&self) -> bool {
        self.bytes == JUST_JOURNALLED_BYTES
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.source", self.label))
    }
}

/// Where the phext is in a data directory.
pub(crate) fn phext_file(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME).with_extension("phext")
}

/// A size as people say it: `1.1 MB`.
pub(crate) fn megabytes(bytes: usize) -> String {
    let tenths = bytes * 10 / MEGABYTE;
    match tenths % 10 {
        0 => format!("{} MB", tenths / 10),
        tenth => format!("{}.{tenth} MB", tenths / 10),
    }
}

/// Where the scroll of an index stands.
pub(crate) fn coordinate(index: usize) -> String {
    let part = |below: usize| index / below % FANOUT + 1;
    let book = index / FANOUT.pow(3) + 1;
    format!("1.1.1/1.1.{book}/{}.{}.{}", part(FANOUT.pow(2)), part(FANOUT), part(1))
}

/// The break that leads to the scroll of an index: of a book, a chapter, a section or a scroll.
fn break_before(index: usize) -> u8 {
    let is_first_of = |power| index.is_multiple_of(FANOUT.pow(power));
    match (is_first_of(3), is_first_of(2), is_first_of(1)) {
        (true, _, _) => 0x1a,
        (_, true, _) => 0x19,
        (_, _, true) => 0x18,
        _ => 0x17,
    }
}

/// Fills a text with so many bytes of words in lines.
pub(crate) fn prose(random: &mut Random, bytes: usize, text: &mut String) {
    text.clear();
    for number in 1.. {
        let word: &&str = random.pick(WORDS);
        text.push_str(word);
        if text.len() >= bytes {
            break;
        }
        text.push(if number % LINE_WORDS == 0 { '\n' } else { ' ' });
    }
    text.truncate(bytes);
}
