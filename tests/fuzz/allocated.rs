//! Counts what is allocated, so that a short input which takes much memory is a finding.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// What reading may take however short the input is: the windows through which files are read.
const FIXED_BYTES: usize = 2 << 20;

/// What it may take for each byte of the input.
const BYTES_A_BYTE: usize = 64;

/// Does something, and checks that it took no more memory at once than its input explains.
pub(crate) fn assert_proportional<T>(input_bytes: usize, work: impl FnOnce() -> T) -> T {
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    let outcome = work();
    let taken = ALLOCATED.peak_usage().saturating_sub(before);
    let limit = FIXED_BYTES + BYTES_A_BYTE * input_bytes;
    assert!(taken <= limit, "{input_bytes} bytes took {taken} bytes of memory");
    outcome
}
