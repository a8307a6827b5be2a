//! The signals of a process, as one stream that is read in one place. Scripts send signals to every daemon, so none ends a
//! process unless it is meant to stop it; one that the program has no use for is logged and ignored.

use std::future::{pending, poll_fn};
use std::io;
use std::task::{Context, Poll, Waker};

use tokio::signal::unix::{SignalKind, signal};

use crate::process::terminal::Terminal;
pub use crate::process::terminal::ends_with_terminal;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Finish what is in flight and end. Has the signal's name, for the log.
    Stop(&'static str),
    /// SIGHUP: apply what the files say now; open log files again.
    Reload,
    /// SIGUSR2: start the new process, then hand the sockets to it.
    Upgrade,
    /// SIGQUIT: hand the sockets to the new process, which the operator starts.
    HandOff,
}

/// A process's signals. While this exists, and afterwards too, none of them has the kernel's default action.
pub struct Signals {
    streams: Vec<Stream>,
    /// The terminal that the process ends with.
    terminal: Option<Terminal>,
}

struct Stream {
    name: &'static str,
    received: tokio::signal::unix::Signal,
    /// `None`: ignored.
    meaning: Option<Signal>,
}

/// SIGQUIT, where there are no sockets to hand to another process.
const QUIT: Signal = Signal::Stop("SIGQUIT");

/// SIGHUP of a terminal that was closed.
const TERMINAL_CLOSED: Signal = Signal::Stop("SIGHUP, for the terminal was closed");

impl Signals {
    /// For a server that an upgrade can replace.
    pub fn for_upgradable() -> io::Result<Self> {
        Self::for_server(Some(Signal::HandOff), Some(Signal::Upgrade))
    }

    /// For a server that starts its own pool, and so stops with it.
    pub fn for_pool_owner() -> io::Result<Self> {
        Self::for_server(Some(QUIT), None)
    }

    /// For the pool of such a server, which is not replaced alone.
    pub fn for_owned_pool() -> io::Result<Self> {
        Self::for_server(None, None)
    }

    /// For a worker, which has no files to read again. A confined one cannot see its terminal: if it ends with it, every
    /// SIGHUP stops it.
    pub fn for_worker(ends_with_terminal: bool) -> io::Result<Self> {
        Self::new(Some(QUIT), ends_with_terminal.then_some(TERMINAL_CLOSED), None, None)
    }

    fn for_server(quit: Option<Signal>, user2: Option<Signal>) -> io::Result<Self> {
        Self::new(quit, Some(Signal::Reload), user2, Terminal::from_process())
    }

    fn new(
        quit: Option<Signal>,
        hangup: Option<Signal>,
        user2: Option<Signal>,
        terminal: Option<Terminal>,
    ) -> io::Result<Self> {
        let streams = [
            ("SIGTERM", SignalKind::terminate(), Some(Signal::Stop("SIGTERM"))),
            ("SIGINT", SignalKind::interrupt(), Some(Signal::Stop("SIGINT"))),
            ("SIGQUIT", SignalKind::quit(), quit),
            ("SIGHUP", SignalKind::hangup(), hangup),
            ("SIGUSR1", SignalKind::user_defined1(), None),
            ("SIGUSR2", SignalKind::user_defined2(), user2),
        ];
        let open = |(name, kind, meaning)| Ok(Stream { name, received: signal(kind)?, meaning });
        let streams = streams.into_iter().map(open).collect::<io::Result<_>>()?;
        Ok(Self { streams, terminal })
    }

    /// Waits for the next signal that the program has a use for. May be given up and called again.
    pub async fn next(&mut self) -> Signal {
        loop {
            let Self { streams, terminal } = self;
            let closed = async {
                match terminal {
                    Some(terminal) => terminal.closed().await,
                    None => pending().await,
                }
            };
            let (name, meaning) = tokio::select! {
                received = poll_fn(|context| poll_next(streams, context)) => received,
                () = closed => return TERMINAL_CLOSED,
            };
            if let (Some(Signal::Reload), Some(terminal)) = (meaning, terminal) {
                terminal.hangup_received();
            }
            match meaning {
                Some(signal) => return signal,
                None => tracing::info!("{name} is ignored"),
            }
        }
    }

    /// Drops the signals of an upgrade that have come so far: while this process waited for its predecessor, they were meant
    /// for that one.
    pub fn drop_upgrades(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let asks = |stream: &&mut Stream| matches!(stream.meaning, Some(Signal::Upgrade | Signal::HandOff));
        for stream in self.streams.iter_mut().filter(asks) {
            while stream.received.poll_recv(&mut context).is_ready() {}
        }
    }

    /// Waits for a signal to stop, and drops all others. Gives its name.
    pub async fn stop(&mut self) -> &'static str {
        loop {
            if let Signal::Stop(name) = self.next().await {
                return name;
            }
        }
    }
}

/// The next signal that came, in the order of the streams. Those behind it are polled at the next call.
fn poll_next(streams: &mut [Stream], context: &mut Context<'_>) -> Poll<(&'static str, Option<Signal>)> {
    let mut received = streams.iter_mut().filter_map(|stream| {
        stream.received.poll_recv(context).is_ready().then_some((stream.name, stream.meaning))
    });
    received.next().map_or(Poll::Pending, Poll::Ready)
}
