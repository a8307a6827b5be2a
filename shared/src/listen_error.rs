//! Explains why an address cannot be listened on, and what the operator can do. Gateway, pool and worker say the
//! same.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::config::ListenAddress;
use crate::file_error;
use crate::socket_file::{self, Connected};

/// The settings that the address comes from, as the operator writes them: `[gateway] listen`.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The setting with the address.
    pub address: &'static str,
    /// The setting with the port.
    pub port: &'static str,
}

impl Settings {
    /// A setting that has both.
    pub const fn one(setting: &'static str) -> Self {
        Self { address: setting, port: setting }
    }
}

/// The whole error message.
pub fn explain(address: &ListenAddress, error: &io::Error, settings: Settings) -> String {
    let advice = match address {
        ListenAddress::Tcp(tcp) => format!("{error}; {}", tcp_advice(*tcp, error, settings)),
        ListenAddress::Unix(path) => socket_file_advice(path, error, settings),
    };
    format!("cannot listen on {address}: {advice}")
}

/// What to do about an address and a port.
pub fn tcp_advice(address: SocketAddr, error: &io::Error, settings: Settings) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program, or another one of ours, has it; find it with: ss -ltnp 'sport = :{}'",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address; change {}", settings.address)
        }
        io::ErrorKind::PermissionDenied => format!(
            "a port below 1024 takes a privilege (CAP_NET_BIND_SERVICE, which systemd's AmbientCapabilities= gives); change {}",
            settings.port
        ),
        _ => "raise the limit of open files (ulimit -n) if it is too low".to_owned(),
    }
}

/// What is wrong with the path of a socket file, and what to do.
fn socket_file_advice(path: &Path, error: &io::Error, settings: Settings) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{}, or change {}", occupant(path).unwrap_or_else(|| error.to_string()), settings.address)
        }
        io::ErrorKind::NotFound => format!("{error}; is its folder there?"),
        _ => file_error::text(path, error),
    }
}

/// What occupies the path of a socket file; `None` when a server can have it.
pub fn occupant(path: &Path) -> Option<String> {
    let found = fs::symlink_metadata(path).ok()?.file_type();
    if !socket_file::is_socket(path) {
        let what = match () {
            () if found.is_dir() => "a folder",
            () if found.is_symlink() => "a symbolic link",
            () => "a file that is not a socket",
        };
        return Some(format!("the path is occupied by {what}: move it away"));
    }
    let listens = "a server listens there";
    let find = format!("`ss -lxp src {}` shows which: stop it", path.display());
    match socket_file::connect(path) {
        Ok(Connected::To(_)) => Some(format!("{listens}; {find}")),
        Ok(Connected::QueueIsFull) => Some(format!("{listens}, and its queue is full; {find}")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => None,
        Err(error) => {
            let why = file_error::text(path, &error);
            Some(format!(
                "the path is occupied by a socket that cannot be connected to ({why}): move it away"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_advice() {
        let settings = Settings { address: "[pool] slot_address", port: "[gateway] slots" };
        let advice = |kind: io::ErrorKind| explain(&"127.0.0.1:80".parse().unwrap(), &kind.into(), settings);
        assert!(advice(io::ErrorKind::AddrInUse).contains("ss -ltnp 'sport = :80'"));
        assert!(
            advice(io::ErrorKind::AddrNotAvailable).ends_with("no such address; change [pool] slot_address")
        );
        let denied = advice(io::ErrorKind::PermissionDenied);
        assert!(denied.contains("CAP_NET_BIND_SERVICE") && denied.ends_with("change [gateway] slots"));
    }
}
