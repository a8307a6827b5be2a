//! Tells the pool, once, that this worker has served: one that did and then dies was killed, and comes back at
//! once; one that did not is held back.
//!
//! The word is one byte on standard output, which the pool gives a worker as a pipe and looks into when it has
//! reaped it. A pipe has room for far more, so this never waits, whether anybody reads or not.

use std::cell::Cell;
use std::io::{self, Write};

/// Whether the pool has been told.
#[derive(Debug, Default)]
pub(super) struct Served {
    is_said: Cell<bool>,
}

impl Served {
    /// A command was applied, and nothing failed.
    pub(super) fn say(&self) {
        if !self.is_said.replace(true) {
            let mut stdout = io::stdout();
            // A pool that is gone needs no word.
            let _ = stdout.write_all(b".").and_then(|()| stdout.flush());
        }
    }
}
