//! The signals that a server of ours obeys: SIGTERM and SIGINT stop it, SIGHUP makes it read its files again, unless it is
//! that of a closed terminal (`hangup.rs`), which stops it.
//! SIGQUIT stops it too, unless it has something to hand over; SIGUSR2 makes it start somebody to hand over to.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

pub use tokio::signal::unix::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::process::hangup::Terminal;
pub use crate::process::hangup::{ends_with_terminal, hangups};

/// Waits for the signal to stop.
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
    /// `None` when SIGQUIT means something else.
    quit: Option<Signal>,
    hangup: Hangup,
    ignored: Ignored,
}

/// Which SIGHUP stops a server.
enum Hangup {
    None,
    Every(Signal),
    OfTerminal(Terminal),
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
        let hangup = Terminal::of_process()?.map_or(Hangup::None, Hangup::OfTerminal);
        Self::with(hangup, Ignored::new([("SIGUSR1", SignalKind::user_defined1())])?)
    }

    /// A worker's, which has no files to read again and hands nothing over. SIGHUP stops one that was started in a
    /// terminal, which it can no longer see.
    ///
    /// # Errors
    /// The runtime cannot take the signals.
    pub fn of_worker(ends_with_terminal: bool) -> io::Result<Self> {
        let users = [("SIGUSR1", SignalKind::user_defined1()), ("SIGUSR2", SignalKind::user_defined2())];
        let (hangup, ignored) = if ends_with_terminal {
            (Hangup::Every(hangups()?), Ignored::new(users)?)
        } else {
            (Hangup::None, Ignored::new(users.into_iter().chain([("SIGHUP", SignalKind::hangup())]))?)
        };
        Ok(Self { quit: Some(quits()?), ..Self::with(hangup, ignored)? })
    }

    fn with(hangup: Hangup, ignored: Ignored) -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, quit: None, hangup, ignored })
    }

    /// Ends at the next of the signals; gives its name.
    pub async fn received(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                () = next(&mut self.quit) => return "SIGQUIT",
                () = self.hangup.stops() => return "SIGHUP, for the terminal was closed",
                name = self.ignored.received() => tracing::info!("{name} is ignored"),
            }
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

impl Hangup {
    async fn stops(&mut self) {
        match self {
            Self::None => std::future::pending().await,
            Self::Every(hangups) => _ = hangups.recv().await,
            Self::OfTerminal(terminal) => terminal.closed().await,
        }
    }
}

/// Signals that a server has no use for, by their names. Scripts send them to every daemon; they must not end one.
struct Ignored(Vec<(&'static str, Signal)>);

impl Ignored {
    fn new(signals: impl IntoIterator<Item = (&'static str, SignalKind)>) -> io::Result<Self> {
        let taken = |(name, kind)| Ok((name, signal(kind)?));
        signals.into_iter().map(taken).collect::<io::Result<_>>().map(Self)
    }

    /// Gives the name of the next one.
    async fn received(&mut self) -> &'static str {
        poll_fn(|context| {
            // Each is asked, so that each wakes this task.
            let mut come = self
                .0
                .iter_mut()
                .filter_map(|(name, signal)| signal.poll_recv(context).is_ready().then_some(*name));
            come.next().map_or(Poll::Pending, Poll::Ready)
        })
        .await
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
pub fn meant_for_the_running_one() -> io::Result<[Signal; 4]> {
    Ok([quits()?, upgrades()?, hangups()?, signal(SignalKind::user_defined1())?])
}
