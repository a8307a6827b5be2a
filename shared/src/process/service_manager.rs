//! Tells the service manager how far a server is: systemd's `Type=notify`, sd_notify(3). Whoever was not started by one
//! tells nobody.

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

/// Another process serves on the sockets of this one, which ends: from now on the service is that one. systemd believes
/// it of a process in the service's own control group.
pub fn handed_over_to(pid: Option<u32>, status: &str) {
    let Some(pid) = pid else {
        return tracing::error!(
            "the process that took over is not known: a service manager will take the service for ended"
        );
    };
    tell(&[NotifyState::MainPid(pid), NotifyState::Status(status)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager (NOTIFY_SOCKET)");
    }
}
