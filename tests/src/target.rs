//! What requests ask for: the targets that most tests use, and the URL of a target.

use std::net::SocketAddr;

/// Reads the first scroll of the phext `text`.
pub const SELECT: &str = "/api/v2/select?p=text&c=1.1.1/1.1.1/1.1.1";

/// Replaces it.
pub const UPDATE: &str = "/api/v2/update?p=text&c=1.1.1/1.1.1/1.1.1";

/// Appends to it.
pub const INSERT: &str = "/api/v2/insert?p=text&c=1.1.1/1.1.1/1.1.1";

/// The URL of a target at a server, for programs that take URLs.
pub fn url(server: SocketAddr, target: &str) -> String {
    format!("http://{server}{target}")
}
