//! The signals that a server of ours obeys: SIGTERM, SIGINT and SIGQUIT stop it, SIGHUP makes it read its
//! files again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for the signal to stop.
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl StopSignal {
    /// Takes the signals over; from now on they no longer end the process by themselves.
    ///
    /// # Errors
    /// The runtime cannot take them.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Ends at the next SIGTERM, SIGINT or SIGQUIT; gives the signal's name.
    pub async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}

/// The stream of SIGHUPs.
///
/// # Errors
/// The runtime cannot take the signal.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}
