//! The client's address: the TCP peer's or, behind a trusted proxy, one from `X-Forwarded-For`.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV4};

use http::HeaderMap;
use ipnet::IpNet;
use sq_shared::headers::lookup::X_FORWARDED_FOR;

use crate::listen::Peer;

/// The number of entries that are read, from the right: more than the proxies on any path to a host.
const MAX_ENTRIES: usize = 32;

/// The longest entry that is read: an IPv6 address with an embedded IPv4 one (45 bytes) in brackets, a port, and a few
/// spaces.
const ENTRY_BYTES: usize = 64;

/// The client's address.
///
/// The list is read from its right end: each proxy appends the peer that it saw, so only entries written by trusted proxies
/// can be trusted, and the right-most address that is not a proxy's is the client. An entry that is not an address ends the
/// walk at the proxy that sent it; an empty one is skipped (RFC 9110, 5.6.1.2). The cost does not grow with the list.
pub(super) fn client_ip(peer: Peer, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.ip();
    if !peer.is_trusted(trusted) {
        return client;
    }
    let fields = headers.get_all(X_FORWARDED_FOR).iter().rev();
    for entry in fields.flat_map(|field| entries_from_the_right(field.as_bytes())).take(MAX_ENTRIES) {
        let Some(entry) = entry.map(<[u8]>::trim_ascii) else { break };
        if entry.is_empty() {
            continue;
        }
        let Some(address) = parse_entry(entry) else { break };
        client = address;
        if !is_in(trusted, client) {
            break;
        }
    }
    client
}

fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The entries of a list, the last one first. `None` is an entry that is too long to be an address.
fn entries_from_the_right(list: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let list = rest.take()?;
        let start = list.len().saturating_sub(ENTRY_BYTES + 1);
        let end = list.get(start..)?;
        match memchr::memrchr(b',', end) {
            Some(comma) => {
                rest = list.get(..start + comma);
                Some(end.get(comma + 1..))
            }
            None => Some(Some(list).filter(|list| list.len() <= ENTRY_BYTES)),
        }
    })
}

/// Parses an address, with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`. One with a zone (`fe80::1%eth0`) is not accepted: a zone only means something on the proxy.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let address = match text.strip_prefix('[') {
        Some(bracketed) => in_brackets(bracketed),
        None => {
            let with_port = || text.parse::<SocketAddrV4>().ok().map(|address| IpAddr::V4(*address.ip()));
            text.parse().ok().or_else(with_port)
        }
    };
    address.map(|address| address.to_canonical())
}

/// Parses what follows an opening bracket: an IPv6 address, the closing bracket, and possibly a port.
fn in_brackets(text: &str) -> Option<IpAddr> {
    let (address, rest) = text.split_once(']')?;
    let has_good_end =
        rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    address.parse::<Ipv6Addr>().ok().filter(|_| has_good_end).map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

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
            "an untrusted peer's list is ignored"
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
        let from_proxy = |list: &str| client("127.0.0.1", &[list]);
        assert_eq!(from_proxy("198.51.100.1:4711"), "198.51.100.1");
        assert_eq!(from_proxy("[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(from_proxy("[2001:db8::1]"), "2001:db8::1");
        assert_eq!(from_proxy("[::ffff:198.51.100.1]:80"), "198.51.100.1");
        assert_eq!(from_proxy("\t 198.51.100.1 "), "198.51.100.1");
        for junk in [
            "unknown",
            "_hidden",
            "localhost",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "256.1.1.1",
            "1.2.3.4:",
            "1.2.3.4:99999",
            "[1.2.3.4]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]80",
            "[2001:db8::1]:",
            "fe80::1%eth0",
            "[fe80::1%1]:80",
            "1.2.3.4/32",
            "\"1.2.3.4\"",
            "1.2.3.4;5.6.7.8",
            "1 .2.3.4",
        ] {
            assert_eq!(from_proxy(&format!("198.51.100.1, {junk}")), "127.0.0.1", "{junk}");
            assert_eq!(from_proxy(&format!("198.51.100.1, {junk}, 10.0.0.2")), "10.0.0.2", "{junk}");
        }
        for empty in ["", ",", " , ,\t,", ",,,,,"] {
            assert_eq!(from_proxy(empty), "127.0.0.1", "{empty:?}");
            assert_eq!(client("127.0.0.1", &["198.51.100.1", empty]), "198.51.100.1", "{empty:?}");
        }
        assert_eq!(from_proxy("198.51.100.1, , 10.0.0.2,"), "198.51.100.1");
    }

    #[test]
    fn bytes_outside_ascii_are_junk() {
        for junk in [&b"\xc2\xa0198.51.100.1"[..], b"198.51.100.1\xff", "１.2.3.4".as_bytes()] {
            let mut headers = HeaderMap::new();
            headers.append(X_FORWARDED_FOR, http::HeaderValue::from_bytes(junk).unwrap());
            let proxy = IpAddr::V4(Ipv4Addr::LOCALHOST);
            assert_eq!(client_ip(Peer::Tcp(proxy), &headers, &["127.0.0.0/8".parse().unwrap()]), proxy);
        }
    }

    #[test]
    fn the_number_of_entries_is_limited() {
        let behind = |count: usize| format!("198.51.100.1{}", ",10.0.0.2".repeat(count));
        assert_eq!(client("127.0.0.1", &[&behind(MAX_ENTRIES - 1)]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &[&behind(MAX_ENTRIES)]), "10.0.0.2");
        let mut fields = vec!["10.0.0.2"; MAX_ENTRIES];
        fields[0] = "198.51.100.1";
        assert_eq!(client("127.0.0.1", &fields), "198.51.100.1");
        fields.insert(0, "198.51.100.1");
        fields[1] = "10.0.0.2";
        assert_eq!(client("127.0.0.1", &fields), "10.0.0.2");
        assert_eq!(client("127.0.0.1", &[&behind(0), &",".repeat(MAX_ENTRIES)]), "127.0.0.1");
    }

    #[test]
    fn the_length_of_an_entry_is_limited() {
        for start in ["", "1.2.3.4,"] {
            let padded = |length: usize| format!("{start}{:>length$}", "198.51.100.1");
            assert_eq!(client("127.0.0.1", &[&padded(ENTRY_BYTES)]), "198.51.100.1");
            assert_eq!(client("127.0.0.1", &[&padded(ENTRY_BYTES + 1)]), "127.0.0.1");
            assert_eq!(client("127.0.0.1", &[&padded(60_000)]), "127.0.0.1");
        }
        let longest = "[0000:0000:0000:0000:0000:ffff:198.51.100.100]:65535";
        assert_eq!(client("127.0.0.1", &[longest]), "198.51.100.100");
    }
}
