//! The client of a hostile worker's tenant: it takes every byte that comes, and says how each compares with what the API
//! allows.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sq_tests::client::Client;

use super::behaviour::{MARK, Request, Verdict};

/// Every field that an answer may have, to a client without an Origin at a gateway without rates.
const LISTED: [&str; 12] = [
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "etag",
    "retry-after",
    "transfer-encoding",
    "x-content-type-options",
    "x-request-id",
    "www-authenticate",
];

/// What workers answer with.
const TEXTS: [&str; 3] = ["", "ok", "some text"];

/// An answer may go on for so long. What is longer has no end.
const ENDLESS_BYTES: usize = 128 << 10;

/// What came, and how long it took to its end.
pub(super) struct Received {
    bytes: Vec<u8>,
    pub(super) took: Duration,
}

/// Sends a request, and takes everything that comes until the gateway closes, for so long.
pub(super) fn ask(client: &Client, request: Request, patience: Duration) -> Received {
    let began = Instant::now();
    let (method, command, body) = match request {
        Request::Select => ("GET", "select", Vec::new()),
        Request::Head => ("HEAD", "select", Vec::new()),
        Request::Update(bytes) => ("POST", "update", vec![b'x'; bytes]),
    };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let target = format!("/api/v2/{command}?p=text&c=1.1.1/1.1.1/1.1.1");
    let head = client.head(method, &target) + &length + "Connection: close\r\n\r\n";
    let mut stream = TcpStream::connect(client.address).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.set_write_timeout(Some(patience)).unwrap();
    let mut sending = stream.try_clone().unwrap();
    let mut bytes = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || {
            // A gateway that has answered takes no more.
            let _ = sending.write_all(&[head.as_bytes(), &body].concat());
        });
        let mut piece = [0; 64 << 10];
        while bytes.len() < ENDLESS_BYTES && began.elapsed() < patience {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => bytes.extend(piece.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    });
    Received { bytes, took: began.elapsed() }
}

impl Received {
    /// Why this is not what the client may get; `None` when it is.
    pub(super) fn mistake(&self, request: Request, verdict: Verdict) -> Option<String> {
        let found = self.verdict(request);
        match found {
            Ok(found) if found == verdict => None,
            found => Some(format!("{found:?} instead of {verdict:?}: {}", self.shown())),
        }
    }

    /// Whether the client has left before the answer ended.
    pub(super) fn is_endless(&self) -> bool {
        self.bytes.len() >= ENDLESS_BYTES
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.bytes).chars().take(600).collect()
    }

    fn verdict(&self, request: Request) -> Result<Verdict, String> {
        let text = String::from_utf8_lossy(&self.bytes).to_ascii_lowercase();
        if text.contains(MARK) {
            return Err(format!("{MARK} came through"));
        }
        if text.is_empty() {
            // The head had not left when the body broke off.
            return Ok(Verdict::BrokenOff);
        }
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no head")?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("http/1.1 ")).ok_or("no status line")?;
        let status: u16 = status.split(' ').next().unwrap_or_default().parse().map_err(|_| "no status")?;
        let fields = fields(lines)?;
        let field = |name: &str| fields.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
        let text = match request {
            Request::Head => Some(body.to_owned()),
            _ => whole_body(body, field("content-length"), field("transfer-encoding"), status),
        };
        let Some(text) = text else { return Ok(Verdict::BrokenOff) };
        let code = |code: &str| text.contains(&format!("\"code\":\"{code}\""));
        match (status, request) {
            (200, _) => match TEXTS.into_iter().find(|expected| *expected == text) {
                Some(text) => Ok(Verdict::Served(text)),
                None => Err("another text".to_owned()),
            },
            (503, Request::Head) => Ok(Verdict::Refused),
            (503, Request::Select) if code("worker_unavailable") => Ok(Verdict::Refused),
            (502, Request::Update(_)) if code("worker_failed") => Ok(Verdict::Refused),
            (504, _) if code("worker_timeout") => Ok(Verdict::Late),
            (status, _) if text.is_empty() => Ok(Verdict::Empty(status)),
            _ => Err(format!("unlisted: {status} {text}")),
        }
    }
}

/// The fields of a head, each of which must be listed, and stand there once.
fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<(&'a str, &'a str)>, String> {
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("not a field: {line}"))?;
        if !LISTED.contains(&name) || fields.iter().any(|(other, _)| *other == name) {
            return Err(format!("unlisted or repeated: {line}"));
        }
        fields.push((name, value));
    }
    Ok(fields)
}

/// The text of an answer; `None` when its framing says that there is more, and `Some` with too much when more came.
fn whole_body(body: &str, length: Option<&str>, coding: Option<&str>, status: u16) -> Option<String> {
    if status == 204 || status == 304 {
        return Some(body.to_owned());
    }
    match (length, coding) {
        (Some(length), None) => (body.len() >= length.parse().ok()?).then(|| body.to_owned()),
        (None, Some("chunked")) => {
            let (mut rest, mut text) = (body, String::new());
            loop {
                let (size, behind) = rest.split_once("\r\n")?;
                let size = usize::from_str_radix(size, 16).ok()?;
                if size == 0 {
                    return Some(text + behind.strip_prefix("\r\n")?);
                }
                text += behind.get(..size)?;
                rest = behind.get(size..)?.strip_prefix("\r\n")?;
            }
        }
        _ => None,
    }
}
