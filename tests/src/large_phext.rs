//! A phext above the size up to which the worker brings the file up to date with each write.

use std::fs;
use std::path::Path;

use crate::ledger::{Ledger, Place};

/// How many scrolls it has, at `1.1.1/1.1.1/1.1.1` and after.
const SCROLLS: usize = 18;

/// The bytes of each; all together are well above 1 MiB.
const SCROLL_BYTES: usize = 64 << 10;

/// One more scroll is farther away than a new one may be.
pub const FAR: usize = 100_001;

/// Puts it into a directory, as another program would, and into the ledger as known.
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
