//! Notifies the service manager of a server's state: systemd's `Type=notify`, sd_notify(3). Does nothing in a process
//! without one.

use rustix::process::Pid;
use sd_notify::NotifyState;

/// The variable with the service manager's socket. It is for the main process, not for its children.
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Requests are served; the status is shown by `systemctl status`.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The server drains and ends.
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
        tracing::warn!(%error, "failed to notify the service manager (NOTIFY_SOCKET)");
    }
}
