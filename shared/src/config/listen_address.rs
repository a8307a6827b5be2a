//! Where a server listens, as it is written in the config and on the command line.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A socket file, written `unix:/path`.
    Unix(PathBuf),
}

/// The longest path of a socket file: `sun_path` without its zero byte (unix(7)).
pub const SOCKET_PATH_BYTES: usize = 107;

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.len() > SOCKET_PATH_BYTES => Err(format!(
                "the path of a socket file has up to {SOCKET_PATH_BYTES} bytes, and this one has {}",
                path.len()
            )),
            Some(path) if path.contains('\0') => Err("a path has no zero byte".to_owned()),
            Some(path) if Path::new(path).is_absolute() => Ok(Self::Unix(path.into())),
            Some(_) => Err("a socket file has an absolute path, as in unix:/run/sq/gateway.sock".to_owned()),
            None => parse_address(text).map(Self::Tcp),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address and a port.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an address and a port, as in 127.0.0.1:1337".to_owned())
}
