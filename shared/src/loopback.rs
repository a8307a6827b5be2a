//! Checks that an operators' port is asked by a name of this machine. A web page that makes its own name resolve to
//! 127.0.0.1 (DNS rebinding) reaches that port through the operator's browser, but the browser then sends the page's
//! host.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::HOST;
use http::uri::Authority;

/// Whether `Host` is localhost or a loopback address, with an optional port.
pub fn names_loopback(headers: &HeaderMap) -> bool {
    let authority = headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let Some(authority) = authority else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let is_loopback =
            |host: &'static str| names_loopback(&HeaderMap::from_iter([(HOST, host.parse().unwrap())]));
        for host in [
            "127.0.0.1",
            "127.0.0.1:1338",
            "127.9.8.7:1",
            "localhost:1338",
            "LOCALHOST",
            "[::1]:1338",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "example.org:1338",
            "10.0.0.1",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "0.0.0.0",
            "[::2]",
            "a b",
            "user@",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
        assert!(!names_loopback(&HeaderMap::new()));
    }
}
