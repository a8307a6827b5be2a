//! Everything that the fuzzer has found interesting, and every finding of it that was mended, still holds.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a target tells of what does not hold by panicking"
)]

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

mod allocated;
mod targets;

/// In one test, one input after the other: what is allocated is counted for the whole process.
#[test]
fn every_input_of_the_corpus_passes() {
    let mut failed = Vec::new();
    for (name, check) in targets::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let inputs = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for path in inputs.map(|entry| entry.unwrap().path()) {
            let data = fs::read(&path).unwrap();
            count += 1;
            if catch_unwind(|| check(&data)).is_err() {
                failed.push(path);
            }
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
