//! The store beside the real `sq` 0.6.0, on the same disk and in one run: how long `select`, `toc`, `update`,
//! `insert` and the first answer take in phexts of 1, 10 and 100 MB, what memory they need, and what 32
//! writers reach beside the disk's own limit. It prints tables and which of its claims are met, and asserts
//! nothing about time.
//!
//! ```sh
//! cargo install sq --version 0.6.0 --locked --root target/peers   # without it only ours is measured
//! cargo bench -p sq-tests --bench store
//! ```
//!
//! In the environment:
//! - `SQ_BENCH_QUICK=1`: a run of seconds that shows that everything works; its figures say nothing
//! - `SQ_BENCH_SIZES=1,10,100`: the sizes in MB; ours is measured at 1.1 MB as well
//! - `SQ_BENCH_DIR=DIR`: where the data goes, instead of the target folder
//! - `SQ_PEER=PROGRAM`: another `sq`; `SQ_BIN_DIR=DIR`: a folder with `sq-worker`, instead of building it
//!
//! How it is measured: both serve without a gateway in front, each from a copy of the same phext, and both are
//! asked on a new connection each time, because `sq` keeps none open. The blocks of requests alternate between
//! the two and the sizes, so that all of them meet the same machine. What `sq` has not synced is synced between
//! the blocks, off the clock, so that our syncs do not wait for its data. Files are in the page cache.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints its tables, and ends when something is wrong"
)]

use sq_tests::peers;

use store::claims;
use store::corpus::Corpus;
use store::latency::{self, Latencies};
use store::machine;
use store::memory;
use store::options::Options;
use store::subject::{Side, Subject};
use store::writers;

mod store {
    //! The parts of the bench.
    pub(crate) mod claims;
    pub(crate) mod corpus;
    pub(crate) mod disk;
    pub(crate) mod latency;
    pub(crate) mod machine;
    pub(crate) mod memory;
    pub(crate) mod options;
    pub(crate) mod samples;
    pub(crate) mod subject;
    pub(crate) mod table;
    pub(crate) mod writers;
}

fn main() {
    // `cargo bench` says so; `cargo test --benches` does not, and wants no figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let options = Options::from_environment();
    let peer = peers::sq("the comparison with it");
    let folder = tempfile::Builder::new().prefix("store-").tempdir_in(&options.dir).unwrap();
    machine::describe(folder.path());

    let mut latencies = Latencies::default();
    let corpora: Vec<Corpus> =
        options.sizes.iter().map(|bytes| Corpus::long_scrolls(folder.path(), *bytes)).collect();
    let mut subjects: Vec<Subject> = Vec::new();
    for corpus in &corpora {
        let beside = peer.as_deref().filter(|_| !corpus.is_ours_only());
        subjects.extend(latency::open_cold(corpus, beside, &options, &mut latencies));
    }
    machine::versions(&subjects);
    latency::measure(&mut subjects, &options, &mut latencies);
    latencies.print();

    let mut memories: Vec<memory::Memory> = subjects.iter().map(memory::of).collect();
    let sustained = subjects.iter_mut().rfind(|subject| subject.side == Side::Ours);
    latency::sustained(sustained.expect("ours at some size"), &options);
    subjects.iter().for_each(Subject::check);
    // The peer's large phexts would only stand in the way of the writers.
    drop(subjects);

    let short = Corpus::short_scrolls(folder.path(), options.largest());
    memories.extend(memory::of_short_scrolls(&short, peer.as_deref()));
    memory::print(&memories);

    let rates = writers::measure(folder.path(), &options);
    writers::print(&rates);
    claims::print(&claims::of(&options, &latencies, &memories, &rates));
    machine::load();
}
