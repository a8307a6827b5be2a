//! HTTP/2 that nginx takes and sends on as HTTP/1.1: fields may hold what would be a line's end there, and bodies
//! have lengths of their own (RFC 9113, 8.1.1 and 8.2.1). Frames and fields are written byte by byte, for no client
//! would send these.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use sq_tests::wait::PATIENCE;

use super::variant::Places;

/// A request: fields that are added to, or stand instead of, those of an honest POST, and its body.
pub(super) struct Http2Variant {
    pub(super) name: &'static str,
    fields: &'static [(&'static str, &'static str)],
    body: &'static str,
}

const fn over(
    name: &'static str,
    fields: &'static [(&'static str, &'static str)],
    body: &'static str,
) -> Http2Variant {
    Http2Variant { name, fields, body }
}

pub(super) const VARIANTS: &[Http2Variant] = &[
    over("honest", &[], "{H}"),
    over("honest with a length", &[("content-length", "{n}")], "{H}"),
    over("H2.CL, zero", &[("content-length", "0")], "{H}"),
    over("H2.CL, too short", &[("content-length", "4")], "{H}"),
    over("H2.CL, too long", &[("content-length", "{n+5}")], "{H}"),
    over("H2.CL, two", &[("content-length", "0"), ("content-length", "{n}")], "{H}"),
    over("H2.CL, plus", &[("content-length", "+{n}")], "{H}"),
    over("H2.TE", &[("transfer-encoding", "chunked")], "0\r\n\r\n{H}"),
    over(
        "H2.TE with a length",
        &[("transfer-encoding", "chunked"), ("content-length", "{n+5}")],
        "0\r\n\r\n{H}",
    ),
    over("H2.TE, a list", &[("transfer-encoding", "chunked, identity")], "0\r\n\r\n{H}"),
    over("CR LF and TE in a value", &[("x-a", "b\r\nTransfer-Encoding: chunked")], "0\r\n\r\n{H}"),
    over("LF and TE in a value", &[("x-a", "b\nTransfer-Encoding: chunked")], "0\r\n\r\n{H}"),
    over("CR and TE in a value", &[("x-a", "b\rTransfer-Encoding: chunked")], "0\r\n\r\n{H}"),
    over("NUL in a value", &[("x-a", "b\0Transfer-Encoding: chunked")], "0\r\n\r\n{H}"),
    over("a request in a value", &[("x-a", "b\r\n\r\n{H}")], "{H}"),
    over("TE in a name", &[("x-a: b\r\ntransfer-encoding", "chunked")], "0\r\n\r\n{H}"),
    over("a colon in a name", &[("transfer-encoding: chunked", "x")], "0\r\n\r\n{H}"),
    over("a space behind a name", &[("transfer-encoding ", "chunked")], "0\r\n\r\n{H}"),
    over("a name in capitals", &[("Transfer-Encoding", "chunked")], "0\r\n\r\n{H}"),
    over("an underscore in a name", &[("transfer_encoding", "chunked")], "0\r\n\r\n{H}"),
    over("an empty name", &[("", "chunked")], "{H}"),
    over("a request in :path", &[(":path", "{target} HTTP/1.1\r\nHost: a\r\n\r\n{H}")], "{H}"),
    over("a space in :path", &[(":path", "{target} HTTP/1.1")], "{H}"),
    over("an absolute :path", &[(":path", "http://other{target}")], "{H}"),
    over("an empty :path", &[(":path", "")], "{H}"),
    over("a request in :method", &[(":method", "GET {target} HTTP/1.1\r\nHost: a\r\n\r\nPOST")], "{H}"),
    over("a space in :method", &[(":method", "POST /health")], "{H}"),
    over("CR LF in :authority", &[(":authority", "a\r\nTransfer-Encoding: chunked")], "0\r\n\r\n{H}"),
    over("a path in :authority", &[(":authority", "a/api/v2/insert")], "{H}"),
    over("a request in :scheme", &[(":scheme", "http://a{target} HTTP/1.1\r\nX: ")], "{H}"),
    over("another host", &[("host", "other")], "{H}"),
    over("two hosts", &[("host", "a"), ("host", "b")], "{H}"),
    over("Connection", &[("connection", "transfer-encoding, content-length")], "{H}"),
    over("Upgrade", &[("upgrade", "h2c"), ("connection", "upgrade")], "{H}"),
    over("an unknown pseudo-field", &[(":smuggle", "x")], "{H}"),
];

/// The honest request's fields; a pseudo-field of the variant's own replaces its namesake.
const HONEST: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "https"),
    (":path", "{target}"),
    (":authority", "sq.example.org"),
    ("authorization", "Bearer {key}"),
    ("x-request-id", "{id}"),
];

impl Http2Variant {
    fn bytes(&self, places: &Places) -> Vec<u8> {
        let is_replaced =
            |name: &str| name.starts_with(':') && self.fields.iter().any(|field| field.0 == name);
        let (pseudo, plain): (Vec<_>, Vec<_>) = HONEST
            .iter()
            .filter(|field| !is_replaced(field.0))
            .chain(self.fields)
            .partition(|field| field.0.starts_with(':'));
        let literal = |field: &(&str, &str)| {
            [vec![0], text(&places.fill(field.0)), text(&places.fill(field.1))].concat()
        };
        let fields: Vec<u8> = pseudo.into_iter().chain(plain).flat_map(literal).collect();
        let body = places.fill(self.body);
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(SETTINGS, 0, 0, &[]),
            frame(HEADERS, END_HEADERS, 1, &fields),
            frame(DATA, END_STREAM, 1, body.as_bytes()),
        ]
        .concat()
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// RFC 9113, 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A string without Huffman's code, its length with a prefix of 7 bits (RFC 7541, 5.1 and 5.2).
fn text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut rest) = text.len().checked_sub(127) {
        bytes.push(127);
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128 + 128).expect("a byte"));
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).expect("a byte"));
    } else {
        bytes.push(u8::try_from(text.len()).expect("a byte"));
    }
    [bytes, text.as_bytes().to_vec()].concat()
}

/// Sends a variant on a connection of its own. Gives the status, or nothing when nginx refused the stream or the
/// whole connection.
pub(super) fn status(nginx: SocketAddr, variant: &Http2Variant, places: &Places) -> Option<u16> {
    let mut stream = TcpStream::connect(nginx).expect("nginx");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
    stream.write_all(&variant.bytes(places)).expect("nginx reads");
    loop {
        let mut head = [0; 9];
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) => {
                let ended = matches!(
                    error.kind(),
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
                );
                assert!(ended, "{}: no answer: {error}", variant.name);
                return None;
            }
        }
        let mut payload =
            vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).expect("a whole frame");
        match head[3] {
            HEADERS => return Some(read_status(&payload)),
            RST_STREAM | GOAWAY => return None,
            _ => {}
        }
    }
}

/// nginx sends the status first, behind a new size of the table: indexed, or as three digits (RFC 7541, 6 and
/// appendix A).
fn read_status(fields: &[u8]) -> u16 {
    let fields = fields.strip_prefix(&[0x20]).unwrap_or(fields);
    match fields {
        [0x08, 3, digits @ ..] => {
            std::str::from_utf8(&digits[..3]).expect("digits").parse().expect("a status")
        }
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        _ => panic!("no status: {fields:x?}"),
    }
}
