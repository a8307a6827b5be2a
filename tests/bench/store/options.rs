//! What a run measures, from the environment.

use std::path::PathBuf;
use std::time::Duration;

use super::corpus::{JUST_JOURNALLED_BYTES, MEGABYTE};

/// What a run measures.
#[derive(Debug)]
pub(crate) struct Options {
    /// The phexts' sizes in bytes, in order; the one that only ours is measured at is among them.
    pub(crate) sizes: Vec<usize>,
    /// Where the data goes: on a disk, and not in memory.
    pub(crate) dir: PathBuf,
    /// How often the blocks of requests of all servers alternate.
    pub(crate) rounds: usize,
    /// How many fresh processes are asked for their first answer.
    pub(crate) openings: usize,
    /// What a server may take for one command at one size, in all rounds; each round asks at least once.
    pub(crate) row: Duration,
    /// How many requests a row has at most.
    pub(crate) row_requests: usize,
    /// How long updates follow each other without a pause.
    pub(crate) sustained: Duration,
    /// How long the writers write in each round of theirs.
    pub(crate) writing: Duration,
    /// How long the disk is measured in each round of the writers.
    pub(crate) disk: Duration,
    /// How often writers and disk alternate.
    pub(crate) writing_rounds: usize,
}

impl Options {
    /// Reads the variables that stand at the top of the bench.
    pub(crate) fn from_environment() -> Self {
        let is_quick = std::env::var("SQ_BENCH_QUICK").is_ok_and(|value| value != "0");
        let sizes = std::env::var("SQ_BENCH_SIZES").ok();
        let sizes = sizes.unwrap_or_else(|| if is_quick { "1,4" } else { "1,10,100" }.to_owned());
        let mut sizes: Vec<usize> = sizes.split(',').map(bytes_of).collect();
        sizes.push(JUST_JOURNALLED_BYTES);
        sizes.sort_unstable();
        sizes.dedup();
        // The folder that Cargo gives to benches, in the target folder.
        let dir = std::env::var_os("SQ_BENCH_DIR")
            .map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
        std::fs::create_dir_all(&dir).expect("the folder for the data");
        let seconds = |full: f64, quick: f64| Duration::from_secs_f64(if is_quick { quick } else { full });
        let count = |full, quick| if is_quick { quick } else { full };
        Self {
            sizes,
            dir,
            rounds: count(10, 2),
            openings: count(7, 2),
            row: seconds(4.0, 0.2),
            row_requests: count(200, 20),
            sustained: seconds(5.0, 0.3),
            writing: seconds(1.0, 0.2),
            disk: seconds(0.4, 0.1),
            writing_rounds: count(3, 1),
        }
    }

    /// The size that the claims about a large phext are checked at.
    pub(crate) fn largest(&self) -> usize {
        self.sizes.last().copied().expect("at least one size")
    }
}

/// A number of MB, which may have a fraction.
fn bytes_of(megabytes: &str) -> usize {
    let tenths: f64 = megabytes.trim().parse().expect("SQ_BENCH_SIZES is numbers of MB, such as 1,10,100");
    let bytes = Duration::from_secs_f64(tenths).as_micros();
    usize::try_from(bytes).expect("a size that fits into memory").max(MEGABYTE / 100)
}
