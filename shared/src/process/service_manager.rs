//! Tells the service manager how far a server is: systemd's `Type=notify`, sd_notify(3). Whoever was not started by one
//! tells nobody.

use rustix::process::Pid;
use sd_notify::NotifyState;

/// The variable that names the service manager's socket. It is for the main process, and no child's business.
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Requests would be served; the status is what `systemctl status` shows.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The server finishes what is in flight, and ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// An upgrade is done: the new process is the service, and this one ends. systemd accepts a new main process that is in
/// the service's own control group.
pub fn upgraded_to(successor: Pid, status: &str) {
    let pid = successor.as_raw_nonzero().get().cast_unsigned();
    tell(&[NotifyState::MainPid(pid), NotifyState::Status(status)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager (NOTIFY_SOCKET)");
    }
}
