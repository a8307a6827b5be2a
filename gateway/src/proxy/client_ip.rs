//! Who the client is: the TCP peer, or, when that is a trusted proxy, what it says in `X-Forwarded-For`.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderMap;
use ipnet::IpNet;
use sq_shared::headers::X_FORWARDED_FOR;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP address.
    Tcp(IpAddr),
    /// A Unix socket: a program on this machine that may open the socket file, and so a trusted proxy.
    Unix,
}

/// The client's address.
///
/// The list is read from its right end: each proxy appends the peer that it saw, so only what trusted
/// proxies have written can be believed, and the right-most address that is not a proxy's is the client.
/// An entry that is no address ends the walk at the proxy that passed it on.
pub fn client_ip(peer: Peer, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.ip();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    if peer != Peer::Unix && !is_trusted(client) {
        return client;
    }
    let fields = headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>();
    let entries = fields.into_iter().rev().flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b','));
    for entry in entries {
        let Some(address) = parse_entry(entry) else { break };
        client = address;
        if !is_trusted(client) {
            break;
        }
    }
    client
}

impl Peer {
    /// The address that is charged when nothing better is known; a Unix socket counts as this machine.
    pub fn ip(self) -> IpAddr {
        match self {
            Self::Tcp(address) => address.to_canonical(),
            Self::Unix => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

/// An address, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let with_port = || text.parse().ok().map(|address: std::net::SocketAddr| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(with_port).or_else(in_brackets).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, fields: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(X_FORWARDED_FOR, field.parse().unwrap());
        }
        let trusted =
            ["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let peer = peer.parse().map_or(Peer::Unix, Peer::Tcp);
        client_ip(peer, &headers, &trusted).to_string()
    }

    #[test]
    fn the_right_most_untrusted_address_is_the_client() {
        assert_eq!(
            client("192.0.2.9", &["198.51.100.1"]),
            "192.0.2.9",
            "a stranger's word counts for nothing"
        );
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["1.2.3.4, 198.51.100.1, 10.0.0.2"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["1.2.3.4", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["10.1.1.1, 10.0.0.2"]), "10.1.1.1");
        assert_eq!(client("", &["198.51.100.1"]), "198.51.100.1", "a Unix socket is trusted");
    }

    #[test]
    fn every_spelling_of_an_address_and_junk() {
        assert_eq!(client("::1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(client("::ffff:127.0.0.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client("127.0.0.1", &["198.51.100.1, unknown"]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["198.51.100.1, , 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("127.0.0.1", &[""]), "127.0.0.1");
    }
}
