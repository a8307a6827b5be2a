//! Tells the two meanings of SIGHUP apart: an operator sends it to have files read again, and kernel and shell send it when
//! the terminal is closed that a program was started in. (Who sent it does not tell: a shell sends it as an operator does.)

use std::fs::File;
use std::future::pending;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::io::Errno;
use tokio::time::{Instant, Interval, interval, sleep_until};

/// How often the terminal is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A terminal emulator may send the signal first and close the terminal then.
const CLOSING_TIME: Duration = Duration::from_millis(100);

/// A signal that comes later than this after the terminal's end is an operator's: the program was left running without it.
const SAME_EVENT: Duration = Duration::from_secs(2);

/// The terminal that a program was started in, and ends with.
pub(super) struct Terminal {
    checks: Interval,
    /// When the last SIGHUP came, until its meaning is known.
    hangup: Option<Instant>,
    /// When the terminal was found to be gone.
    gone: Option<Instant>,
}

impl Terminal {
    /// The terminal of this process. `None` when it has none, and when it was started to outlive it (`nohup`). Call it
    /// inside a runtime, before anything registers for SIGHUP.
    pub(super) fn from_process() -> Option<Self> {
        ends_with_terminal().then(|| Self { checks: interval(CHECK_INTERVAL), hangup: None, gone: None })
    }

    /// SIGHUP has come.
    pub(super) fn hangup_received(&mut self) {
        self.hangup = Some(Instant::now());
    }

    /// Waits until the terminal is closed, and SIGHUP has come with that. May be given up and called again.
    pub(super) async fn closed(&mut self) {
        loop {
            let Self { checks, hangup, .. } = self;
            let settled = async {
                match hangup {
                    Some(hangup) => sleep_until(*hangup + CLOSING_TIME).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                _ = checks.tick() => self.check(),
                () = settled => {
                    self.hangup = None;
                    self.check();
                    if self.gone.is_some_and(|gone| gone.elapsed() < SAME_EVENT) {
                        return;
                    }
                }
            }
        }
    }

    fn check(&mut self) {
        if self.gone.is_none() && is_gone() {
            tracing::debug!("the terminal is gone");
            self.gone = Some(Instant::now());
        }
    }
}

/// Whether this process was started in a terminal, and not to outlive it.
pub fn ends_with_terminal() -> bool {
    !was_ignored() && File::open(TERMINAL).is_ok()
}

/// The terminal of the process that opens it.
const TERMINAL: &str = "/dev/tty";

fn is_gone() -> bool {
    let error = File::open(TERMINAL).err();
    // Others, such as too many open files, say nothing about the terminal.
    let error = error.as_ref().and_then(Errno::from_io_error);
    matches!(error, Some(Errno::NXIO | Errno::IO))
}

/// Whether this process was started with SIGHUP ignored, as `nohup` does it. The kernel tells it only until the first
/// registration for SIGHUP.
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
