//! The signals that a server of ours obeys: SIGTERM and SIGINT stop it, SIGHUP makes it read its files again.
//! SIGQUIT stops it too, unless it has something to hand over; SIGUSR2 makes it start somebody to hand over to.

use std::io;

pub use tokio::signal::unix::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Waits for the signal to stop.
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
    /// `None` when SIGQUIT means something else.
    quit: Option<Signal>,
}

impl StopSignal {
    /// Takes the signals over; from now on they no longer end the process by themselves.
    ///
    /// # Errors
    /// The runtime cannot take them.
    pub fn new() -> io::Result<Self> {
        Ok(Self { quit: Some(quits()?), ..Self::without_quit()? })
    }

    /// The same without SIGQUIT.
    ///
    /// # Errors
    /// The runtime cannot take them.
    pub fn without_quit() -> io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)?, quit: None })
    }

    /// Ends at the next of the signals; gives its name.
    pub async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = next(&mut self.quit) => "SIGQUIT",
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// The stream of SIGQUITs; from now on they no longer end the process by themselves.
///
/// # Errors
/// The runtime cannot take the signal.
pub fn quits() -> io::Result<Signal> {
    signal(SignalKind::quit())
}

/// The stream of SIGUSR2s: a new process is to be started, and handed over to.
///
/// # Errors
/// The runtime cannot take the signal.
pub fn upgrades() -> io::Result<Signal> {
    signal(SignalKind::user_defined2())
}

/// The streams of the signals that a process with `--upgrade` takes over and does not obey while it waits: whoever sends
/// one of them to every process of the name means the one that runs already.
///
/// # Errors
/// The runtime cannot take them.
pub fn meant_for_the_running_one() -> io::Result<[Signal; 3]> {
    Ok([quits()?, upgrades()?, hangups()?])
}

/// The stream of SIGHUPs.
///
/// # Errors
/// The runtime cannot take the signal.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}
