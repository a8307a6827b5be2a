//! Notifies the service manager of a server's state: systemd's `Type=notify`, sd_notify(3). Does nothing in a process
//! without one.

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

/// Another process serves on this one's sockets, and is the service from now on. systemd accepts a process in the
/// service's own control group.
pub fn handed_over_to(pid: Option<u32>, status: &str) {
    let Some(pid) = pid else {
        return tracing::error!(
            "the process that took over is unknown: a service manager will see the service end"
        );
    };
    tell(&[NotifyState::MainPid(pid), NotifyState::Status(status)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "failed to notify the service manager (NOTIFY_SOCKET)");
    }
}
