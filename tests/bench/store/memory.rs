//! What memory a server needs for a phext.

use std::path::Path;

use sq_tests::process::kibibytes;

use super::corpus::{Corpus, MEGABYTE, megabytes};
use super::subject::{Command, Side, Subject};
use super::table::{Table, times};

/// How many writes come before the memory of a server with short scrolls is read.
const WRITES: usize = 5;

/// What a process needs after its work.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Whose process.
    pub(crate) side: Side,
    /// The phext's size in bytes.
    pub(crate) bytes: usize,
    scroll_bytes: usize,
    /// What is resident now (`VmRSS`), as a multiple of the phext's size.
    pub(crate) resident: f64,
    /// The most that ever was (`VmHWM`), as a multiple of the phext's size.
    pub(crate) peak: f64,
    /// Whether this is the phext of short scrolls.
    pub(crate) is_short: bool,
}

/// Reads a server's memory.
pub(crate) fn of(subject: &Subject) -> Memory {
    let multiple = |field| {
        let kib = kibibytes(subject.pid(), "status", field).expect("the memory of a running process");
        float(kib * 1024) / float(subject.bytes as u64)
    };
    Memory {
        side: subject.side,
        bytes: subject.bytes,
        scroll_bytes: subject.scroll_bytes,
        resident: multiple("VmRSS"),
        peak: multiple("VmHWM"),
        is_short: false,
    }
}

/// The memory of both for a phext of short scrolls, after a few requests.
pub(crate) fn of_short_scrolls(corpus: &Corpus, peer: Option<&Path>) -> Vec<Memory> {
    let sides = [Some((None, Side::Ours)), peer.map(|program| (Some(program), Side::Theirs))];
    let measure = |(program, side): (Option<&Path>, Side)| {
        let mut subject = Subject::start(corpus, program, &corpus.data_dir(side.name()));
        subject.ask(Command::Select);
        subject.ask(Command::Toc);
        for _ in 0..WRITES {
            subject.ask(Command::Update);
        }
        subject.sync_for_peer();
        subject.await_file();
        Memory { is_short: true, ..of(&subject) }
    };
    sides.into_iter().flatten().map(measure).collect()
}

/// Prints a row a server.
pub(crate) fn print(memories: &[Memory]) {
    let columns = ["memory", "size", "scrolls of", "VmRSS MB", "times size", "VmHWM MB", "times size"];
    let mut table = Table::new(&columns);
    for memory in memories {
        let in_megabytes =
            |multiple: f64| format!("{:.1}", multiple * float(memory.bytes as u64) / float(MEGABYTE as u64));
        table.row(vec![
            memory.side.name().to_owned(),
            megabytes(memory.bytes),
            format!("{} bytes", memory.scroll_bytes),
            in_megabytes(memory.resident),
            times(memory.resident),
            in_megabytes(memory.peak),
            times(memory.peak),
        ]);
    }
    table.print("Memory after the commands above.");
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn float(number: u64) -> f64 {
    number as f64
}
