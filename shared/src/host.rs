//! Checks the `Host` of a request as RFC 9112, 3.2 requires. A lenient reader may take a request for another
//! server's.

use std::net::Ipv6Addr;

use http::header::HOST;
use http::{HeaderMap, Uri, Version};

use crate::byte_set::ByteSet;
use crate::problem::{Code, Problem};

/// Why a `Host` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// The request has no `Host`.
    #[error("the request has no Host: send exactly one")]
    Missing,
    /// The request has several.
    #[error("the request has more than one Host: send exactly one")]
    Repeated,
    /// It is not a host, or contains more, such as a user's name.
    #[error("the Host is not a host, with a port or without: send it as in localhost:1338")]
    Malformed,
    /// The request target names another host.
    #[error("the target names another host than the Host header")]
    Contradicted,
}

impl InvalidHost {
    /// The refusal.
    pub fn problem(self) -> Problem {
        Problem::new(Code::BadRequest, self.to_string())
    }
}

/// Checks that a request names exactly one valid host. An HTTP/1.0 request may name none.
pub fn check(version: Version, target: &Uri, headers: &HeaderMap) -> Result<(), InvalidHost> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        return if version == Version::HTTP_11 { Err(InvalidHost::Missing) } else { Ok(()) };
    };
    if hosts.next().is_some() {
        return Err(InvalidHost::Repeated);
    }
    if !is_host(host.as_bytes()) {
        return Err(InvalidHost::Malformed);
    }
    match target.authority() {
        Some(authority) if authority.as_str().as_bytes() != host.as_bytes() => Err(InvalidHost::Contradicted),
        _ => Ok(()),
    }
}

/// Whether this is a host with an optional port (RFC 3986, 3.2.2 and 3.2.3): no user, no space, at most one port.
pub fn is_host(value: &[u8]) -> bool {
    if let Some(rest) = value.strip_prefix(b"[") {
        let end = rest.iter().position(|byte| *byte == b']');
        let Some((address, rest)) = end.and_then(|end| rest.split_at_checked(end)) else { return false };
        let is_address =
            std::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok());
        return is_address && rest.strip_prefix(b"]").is_some_and(is_end);
    }
    let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
    let (name, rest) = value.split_at_checked(end).unwrap_or_default();
    !name.is_empty() && name.iter().all(|byte| NAME_BYTES.contains(*byte)) && is_end(rest)
}

/// The bytes of a name.
static NAME_BYTES: ByteSet = ByteSet::alphanumerics_and(b"-._~%!$&'()*+,;=");

/// Whether a name is followed by nothing but a port, which may have no digits.
fn is_end(rest: &[u8]) -> bool {
    let Some(digits) = rest.strip_prefix(b":") else { return rest.is_empty() };
    let number = digits.iter().try_fold(0_u32, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit).filter(|number| *number <= u32::from(u16::MAX))
    });
    number.is_some()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port_or_without() {
        for host in [
            "a",
            "localhost:1338",
            "127.0.0.1:1",
            "a.example.org:",
            "a_b%20c",
            "[::1]",
            "[2001:db8::1]:65535",
            "a:00080",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "user@a",
            "user:pw@a",
            "@a",
            "a b",
            "a:b",
            "a:80:80",
            "a:-1",
            "a:65536",
            "a:4294967377",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[a]",
            "[]",
            "a[b]",
            "http://a",
            "a,b:1,2",
            "\u{e4}",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn there_is_one_host_and_the_target_names_no_other() {
        let checked = |version, target: &'static str, hosts: &[&'static str]| {
            let hosts = hosts.iter().map(|host| (HOST, HeaderValue::from_static(host)));
            let mut headers = HeaderMap::new();
            hosts.for_each(|(name, value)| _ = headers.append(name, value));
            check(version, &Uri::from_static(target), &headers)
        };
        let current = Version::HTTP_11;
        assert_eq!(checked(current, "/a", &["a"]), Ok(()));
        assert_eq!(checked(current, "http://a:1/a", &["a:1"]), Ok(()));
        assert_eq!(checked(Version::HTTP_10, "/a", &[]), Ok(()));
        assert_eq!(checked(current, "/a", &[]), Err(InvalidHost::Missing));
        assert_eq!(checked(Version::HTTP_10, "/a", &["a", "a"]), Err(InvalidHost::Repeated));
        assert_eq!(checked(current, "/a", &["user@a"]), Err(InvalidHost::Malformed));
        assert_eq!(checked(current, "http://user@a/", &["a"]), Err(InvalidHost::Contradicted));
        assert_eq!(checked(current, "http://b/", &["a"]), Err(InvalidHost::Contradicted));
    }
}
