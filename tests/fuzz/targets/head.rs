//! The head of a request at the edge: what is accepted has one reading, which the parser behind it shares; and it
//! makes no difference in which pieces it comes.

use std::time::Duration;

use bytes::BytesMut;
use percent_encoding::percent_decode;
use pingora::http::RequestHeader;
use pingora::protocols::Stream;
use sq_gateway::edge::head::{self, HeadLimits};
use sq_gateway::edge::head_error::HeadError;
use sq_shared::limits::HEADER_FIELDS;
use tokio::io::{AsyncWriteExt, duplex};

/// Small, so that the fuzzer finds it.
const LIMITS: HeadLimits = HeadLimits { bytes: Some(1024), time: Duration::from_secs(10) };

pub(crate) fn check(data: &[u8]) {
    let whole = read(data, data.len());
    for piece_bytes in [1, 7] {
        let pieces = read(data, piece_bytes);
        let heads = [&whole, &pieces].map(|read| read.as_ref().map(|read| read.as_deref().map(head_of)));
        assert_eq!(heads[0], heads[1], "in pieces of {piece_bytes}");
    }
    if let Ok(Some(accepted)) = whole {
        assert_one_reading(head_of(&accepted), &accepted);
        assert_target_means_the_same(&accepted, data);
    }
}

/// Without what was read of the body.
fn head_of(accepted: &[u8]) -> &[u8] {
    let end = accepted.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    &accepted[..end]
}

/// What is handed to pingora; `None` when the connection ends first.
fn read(data: &[u8], piece_bytes: usize) -> Result<Option<Vec<u8>>, HeadError> {
    let (mut client, server) = duplex(piece_bytes.max(1));
    let reading = async move {
        let mut stream: Stream = Box::new(server);
        head::read(&mut stream, BytesMut::new(), LIMITS, None).await
    };
    let writing = async move {
        // What is refused early is not read to its end.
        let _ = client.write_all(data).await;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let head = runtime.block_on(async { tokio::join!(reading, writing).0 })?;
    Ok(head.map(|bytes| bytes.to_vec()))
}

fn assert_one_reading(head: &[u8], accepted: &[u8]) {
    let lines: Vec<&[u8]> = head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end()).collect();
    let [request_line, fields @ .., b"", b""] = lines.as_slice() else { panic!("{lines:?}") };
    let mut theirs = [httparse::EMPTY_HEADER; HEADER_FIELDS];
    let mut request = httparse::Request::new(&mut theirs);
    let parsed = request.parse(accepted);
    assert_eq!(parsed, Ok(httparse::Status::Complete(head.len())));
    let (method, target) = (request.method.unwrap(), request.path.unwrap());
    let version = request.version.unwrap();
    assert_eq!(*request_line, format!("{method} {target} HTTP/1.{version}").as_bytes());
    assert!(RequestHeader::build(method, target.as_bytes(), None).is_ok(), "pingora refuses {target}");
    assert_eq!(request.headers.len(), fields.len());
    for (theirs, ours) in request.headers.iter().zip(fields) {
        let colon = ours.iter().position(|byte| *byte == b':').unwrap();
        assert_eq!(theirs.name.as_bytes(), &ours[..colon]);
        assert_eq!(theirs.value, ours[colon + 1..].trim_ascii());
    }
    let values = |name: &str| -> Vec<&[u8]> {
        let named = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value).collect()
    };
    let (lengths, encodings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.len() + encodings.len() <= 1, "two framings");
    assert!(encodings.iter().all(|value| version == 1 && value.eq_ignore_ascii_case(b"chunked")));
    let is_length = |value: &[u8]| {
        value.iter().all(u8::is_ascii_digit) && std::str::from_utf8(value).unwrap().parse::<u64>().is_ok()
    };
    assert!(lengths.iter().all(|value| is_length(value)));
    let hosts = values("host").len();
    assert!(hosts == 1 || (hosts == 0 && version == 0));
    assert_ne!(method, "CONNECT");
}

/// The target may have been percent-encoded, which changes nothing of what it says; all else is as it came.
fn assert_target_means_the_same(accepted: &[u8], data: &[u8]) {
    let mut came = data;
    while let Some(rest) = came.strip_prefix(b"\r\n") {
        came = rest;
    }
    let parts = |bytes: &[u8]| -> [Vec<u8>; 3] {
        let parts: Vec<Vec<u8>> = bytes.splitn(3, |byte| *byte == b' ').map(<[u8]>::to_vec).collect();
        parts.try_into().unwrap()
    };
    let ([method, target, rest], [came_method, came_target, came_rest]) = (parts(accepted), parts(came));
    let decoded = |target: &[u8]| percent_decode(target).collect::<Vec<u8>>();
    assert_eq!(method, came_method);
    assert_eq!(decoded(&target), decoded(&came_target));
    assert!(came_rest.starts_with(&rest));
}
