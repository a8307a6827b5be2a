//! A phext that is too large for the worker to save with each write.

use std::fs;
use std::path::Path;

use crate::ledger::{Ledger, Place};

/// The number of its scrolls, at `1.1.1/1.1.1/1.1.1` and after.
const SCROLLS: usize = 18;

/// The bytes of each scroll; together they have well over 1 MiB.
const SCROLL_BYTES: usize = 64 << 10;

/// The number of another scroll, beyond the limit for new ones.
pub const FAR: usize = 100_001;

/// Writes it into a directory, as another program would, and notes it in the ledger.
///
/// # Panics
/// It cannot be written.
pub fn write(data_dir: &Path, name: &str, ledger: &Ledger) {
    let texts: Vec<String> =
        (1..=SCROLLS).map(|number| format!("{number:>8}").repeat(SCROLL_BYTES / 8)).collect();
    let way = "\x17".repeat(FAR - SCROLLS);
    let text = [texts.join("\x17"), way, "far\n".to_owned()].concat();
    fs::write(data_dir.join(format!("{name}.phext")), text).expect("a large phext");
    ledger.known(Place::new(name, FAR), "far\n".to_owned());
    for (number, text) in (1..).zip(texts) {
        ledger.known(Place::new(name, number), text);
    }
}
