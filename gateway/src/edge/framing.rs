//! Checks that a head is unambiguous about where its request ends and for which host it is (RFC 9112). Whatever two servers in
//! a row might read differently is refused, however common it is.

use http::Version;
use memchr::memchr_iter;
use sq_shared::byte_set::ByteSet;
use sq_shared::host::is_host;
use sq_shared::limits::HEADER_FIELDS;

use super::head_error::HeadError;
use crate::proxy::target::{origin_form, split_target};
use crate::proxy::utf8::InvalidUtf8;

/// Checks a complete head, from the request line to the empty line.
pub(super) fn check(head: &[u8]) -> Result<(), HeadError> {
    let mut line_start = 0;
    let mut lines = memchr_iter(b'\n', head).map(|newline| {
        let line = head.get(line_start..=newline).unwrap_or_default();
        line_start = newline + 1;
        without_line_end(line)
    });
    let request_line = lines.next().ok_or(HeadError::Malformed("There is no request line."))??;
    let version = check_request_line(request_line)?;
    let mut fields = Fields::default();
    for line in lines {
        let line = line?;
        if !line.is_empty() {
            fields.add(line)?;
        }
    }
    fields.finish(version, request_line)
}

fn without_line_end(line: &[u8]) -> Result<&[u8], HeadError> {
    let line =
        line.strip_suffix(b"\r\n").ok_or(HeadError::Malformed("A line of the head ends without CR LF."))?;
    if line.contains(&b'\r') {
        return Err(HeadError::Malformed("There is a bare CR in the head."));
    }
    Ok(line)
}

fn check_request_line(line: &[u8]) -> Result<Version, HeadError> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadError::Malformed(
            "The request line is not: method, target, version, one space between them.",
        ));
    };
    if method.is_empty() || !method.iter().all(is_token_byte) {
        return Err(HeadError::Malformed("The method is not a token."));
    }
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        _ => return Err(HeadError::Malformed("The version is neither HTTP/1.1 nor HTTP/1.0.")),
    };
    if method == b"CONNECT" {
        return Err(HeadError::Connect);
    }
    check_target(target, method)?;
    Ok(version)
}

fn check_target(target: &[u8], method: &[u8]) -> Result<(), HeadError> {
    if target.iter().any(u8::is_ascii_control) {
        return Err(HeadError::Malformed("There is a control byte in the target."));
    }
    let path_and_query = origin_form(target);
    let asterisk = path_and_query == b"*" && method == b"OPTIONS";
    if !path_and_query.starts_with(b"/") && !path_and_query.starts_with(b"?") && !asterisk {
        return Err(HeadError::Malformed("The target is not a path."));
    }
    let (path, query) = split_target(path_and_query);
    for (part, bytes) in [("path", path), ("query", query)] {
        if let Err(error) = std::str::from_utf8(bytes) {
            let error = InvalidUtf8 { part, offset: error.valid_up_to() as u64 };
            return Err(HeadError::InvalidUtf8(error));
        }
    }
    Ok(())
}

/// Trims spaces and tabs. (`trim_ascii` would also trim a form feed, which is a control byte.)
fn trim_blanks(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = value.iter().position(is_text).unwrap_or(value.len());
    let end = value.iter().rposition(is_text).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

/// The bytes of a token (RFC 9110, 5.6.2). A table, because every byte of every field name is looked up.
static TOKEN_BYTES: ByteSet = ByteSet::alphanumerics_and(b"!#$%&'*+-.^_`|~");

/// Whether a token may contain this byte.
pub(super) fn is_token_byte(byte: &u8) -> bool {
    TOKEN_BYTES.contains(*byte)
}

/// The fields that decide where a request ends and for which host it is.
#[derive(Default)]
struct Fields<'h> {
    count: usize,
    host: Option<&'h [u8]>,
    content_length: Option<&'h [u8]>,
    transfer_encoding: Option<&'h [u8]>,
}

impl<'h> Fields<'h> {
    fn add(&mut self, line: &'h [u8]) -> Result<(), HeadError> {
        self.count += 1;
        if self.count > HEADER_FIELDS {
            return Err(HeadError::TooManyFields);
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(HeadError::Malformed("A header field is folded over two lines."));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = colon.and_then(|colon| line.split_at_checked(colon)).unwrap_or((b"", b""));
        if name.is_empty() || !name.iter().all(is_token_byte) {
            return Err(HeadError::Malformed("A header line is not: name, colon, value."));
        }
        let value = trim_blanks(value.get(1..).unwrap_or_default());
        // No early exit, so that the compiler can vectorise the loop.
        let has_control =
            value.iter().fold(false, |has, byte| has | (byte.is_ascii_control() & (*byte != b'\t')));
        if has_control {
            return Err(HeadError::Malformed("There is a control byte in a header."));
        }
        self.remember(name, value)
    }

    fn remember(&mut self, name: &[u8], value: &'h [u8]) -> Result<(), HeadError> {
        let (slot, twice) = if name.eq_ignore_ascii_case(b"host") {
            (&mut self.host, "There are two Host headers.")
        } else if name.eq_ignore_ascii_case(b"content-length") {
            (&mut self.content_length, "There are two Content-Length headers.")
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            (&mut self.transfer_encoding, "There are two Transfer-Encoding headers.")
        } else {
            return Ok(());
        };
        if slot.replace(value).is_some() { Err(HeadError::Malformed(twice)) } else { Ok(()) }
    }

    fn finish(&self, version: Version, request_line: &[u8]) -> Result<(), HeadError> {
        self.check_host(version, request_line)?;
        if let Some(length) = self.content_length {
            let digits = length.iter().all(u8::is_ascii_digit).then_some(length);
            let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
            if number.is_none() {
                return Err(HeadError::Malformed("Content-Length is not a number below 2^64."));
            }
        }
        let Some(encoding) = self.transfer_encoding else { return Ok(()) };
        if self.content_length.is_some() {
            return Err(HeadError::Malformed("The request has both Content-Length and Transfer-Encoding."));
        }
        if version == Version::HTTP_10 || !encoding.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::Malformed(
                "Transfer-Encoding is taken as \"chunked\" alone, in HTTP/1.1.",
            ));
        }
        Ok(())
    }

    fn check_host(&self, version: Version, request_line: &[u8]) -> Result<(), HeadError> {
        let Some(host) = self.host else {
            let optional = version == Version::HTTP_10;
            return if optional { Ok(()) } else { Err(HeadError::Malformed("There is no Host header.")) };
        };
        if !is_host(host) {
            return Err(HeadError::Malformed("The Host header is not a host."));
        }
        let target = request_line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let front = target.get(..target.len() - origin_form(target).len()).unwrap_or_default();
        let authority = front.splitn(3, |byte| *byte == b'/').nth(2).unwrap_or_default();
        // pingora compares them byte by byte and would refuse without a body.
        if authority.is_empty() || authority == host {
            return Ok(());
        }
        Err(HeadError::Malformed("The target names another host than the Host header."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdict(head: &str) -> Result<(), HeadError> {
        check(head.as_bytes())
    }

    #[test]
    fn plain_heads_pass() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a?b HTTP/1.0\r\n\r\n",
            "GET http://a:1/b HTTP/1.1\r\nHost: a:1\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: [::1]:80\r\ncontent-length: 0\r\nX:\ty \u{e9}\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
        ] {
            assert_eq!(verdict(head), Ok(()), "{head:?}");
        }
    }

    #[test]
    fn every_ambiguity_is_refused() {
        let with = |line: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
        for line in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Content-Length: +1",
            "Content-Length: 1, 1",
            "Content-Length:",
            "Content-Length: 0x1",
            "Content-Length: 18446744073709551616",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Host: b",
            "X : y",
            " folded: y",
            "X: y\r\n folded",
            "no colon",
            ": y",
            "X: y\0",
            "X: y\x0c",
            "Content-Length: 5\x0c",
            "X: a\rb",
            "X: y\nZ: w",
        ] {
            assert!(matches!(verdict(&with(line)), Err(HeadError::Malformed(_))), "{line:?}");
        }
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:http\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\t HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://A/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /\n\n",
        ] {
            assert!(matches!(verdict(head), Err(HeadError::Malformed(_))), "{head:?}");
        }
        assert_eq!(verdict("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"), Err(HeadError::Connect));
    }

    #[test]
    fn fields_at_the_limit_and_one_past() {
        let head = |count| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
        assert_eq!(verdict(&head(HEADER_FIELDS)), Ok(()));
        assert_eq!(verdict(&head(HEADER_FIELDS + 1)), Err(HeadError::TooManyFields));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&bytes);
        }
    }
}
