//! What libFuzzer drives, one executable for all targets: `SQ_FUZZ_TARGET` says which. `tests/fuzz/run` builds and
//! starts it.

#![no_main]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a target tells of what does not hold by panicking"
)]

use std::sync::OnceLock;

mod allocated;
mod targets;

static CHECK: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let wanted = std::env::var("SQ_FUZZ_TARGET").unwrap_or_default();
        let names = targets::TARGETS.map(|(name, _)| name);
        let target = targets::TARGETS.iter().find(|(name, _)| *name == wanted);
        let (_, check) = target.unwrap_or_else(|| panic!("SQ_FUZZ_TARGET is none of {names:?}"));
        CHECK.get_or_init(|| *check);
    },
    |data: &[u8]| CHECK.get().unwrap()(data)
);
