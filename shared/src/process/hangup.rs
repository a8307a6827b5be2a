//! Tells the two meanings of SIGHUP apart: an operator sends it to have files read again, and kernel and shell send it when
//! the terminal is closed that a program was started in. (Who sent it does not tell: a shell sends it as an operator does.)

use std::fs::File;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::io::Errno;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, interval, sleep_until};

/// How often it is looked whether the terminal is still there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A terminal emulator may send the signal first and close the terminal then.
const CLOSING_TIME: Duration = Duration::from_millis(100);

/// A signal that comes later than this after the terminal's end is an operator's: the program was left running without it.
const SAME_EVENT: Duration = Duration::from_secs(2);

/// The terminal that a program was started in, and ends with.
pub struct Terminal {
    hangups: Signal,
    /// The last SIGHUP, until it is known what it meant.
    asked: Option<Instant>,
    /// When it was seen that the terminal is gone.
    gone: Option<Instant>,
}

impl Terminal {
    /// The terminal of this process. `None` when it has none, and when it was started to outlive it (`nohup`).
    ///
    /// # Errors
    /// The runtime cannot take SIGHUP.
    pub fn of_process() -> io::Result<Option<Self>> {
        if !ends_with_terminal() {
            return Ok(None);
        }
        Ok(Some(Self { hangups: hangups()?, asked: None, gone: None }))
    }

    /// Ends when the terminal was closed, and SIGHUP said so.
    pub async fn closed(&mut self) {
        let mut looks = interval(LOOK_INTERVAL);
        loop {
            let settled = async {
                match self.asked {
                    Some(asked) => sleep_until(asked + CLOSING_TIME).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = looks.tick() => self.look(),
                _ = self.hangups.recv() => self.asked = Some(Instant::now()),
                () = settled => {
                    self.asked = None;
                    self.look();
                    if self.gone.is_some_and(|gone| gone.elapsed() < SAME_EVENT) {
                        return;
                    }
                }
            }
        }
    }

    fn look(&mut self) {
        if self.gone.is_none() && is_gone() {
            tracing::debug!("the terminal is gone");
            self.gone = Some(Instant::now());
        }
    }
}

/// The stream of SIGHUPs.
///
/// # Errors
/// The runtime cannot take the signal.
pub fn hangups() -> io::Result<Signal> {
    // From now on the kernel no longer tells.
    was_ignored();
    signal(SignalKind::hangup())
}

/// Whether this process was started in a terminal, and not to outlive it.
pub fn ends_with_terminal() -> bool {
    !was_ignored() && File::open(TERMINAL).is_ok()
}

/// The terminal of the process that opens it.
const TERMINAL: &str = "/dev/tty";

fn is_gone() -> bool {
    let error = File::open(TERMINAL).err();
    // Others, such as too many open files, say nothing of it.
    let error = error.as_ref().and_then(Errno::from_io_error);
    matches!(error, Some(Errno::NXIO | Errno::IO))
}

/// Whether this process was started with SIGHUP ignored, as `nohup` does it.
fn was_ignored() -> bool {
    static WAS_IGNORED: OnceLock<bool> = OnceLock::new();
    *WAS_IGNORED.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
        // SIGHUP is signal 1, the lowest bit.
        mask & 1 == 1
    })
}
