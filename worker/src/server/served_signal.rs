//! Tells the pool, once, that this worker has served. The pool restarts a worker that had served and then died at once;
//! one that never served is held back longer after each crash.
//!
//! The signal is one byte on standard output, a pipe that the pool also reads after it has reaped the worker. One byte
//! always fits in the pipe, so the write never blocks.

use std::cell::Cell;
use std::io::{self, Write};

/// Whether the signal was sent.
#[derive(Debug, Default)]
pub(super) struct ServedSignal {
    is_sent: Cell<bool>,
}

impl ServedSignal {
    /// Sends the signal, the first time only.
    pub(super) fn send(&self) {
        if !self.is_sent.replace(true) {
            let mut stdout = io::stdout();
            // Fails only when the pool is gone.
            let _ = stdout.write_all(b".").and_then(|()| stdout.flush());
        }
    }
}
