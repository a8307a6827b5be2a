//! A small HTTP/1.1 client that sends exactly the bytes it is given, and returns exactly what it receives.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

use crate::answer::Answer;
use crate::wait::PATIENCE;

/// How long a connection may take to be accepted; the kernel does that.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// A server, and the key for it.
#[derive(Debug, Clone)]
pub struct Client {
    /// The server.
    pub address: SocketAddr,
    key: Option<String>,
    /// The local address to connect from; `None` lets the system choose.
    source: Option<IpAddr>,
}

/// A connection, and its bytes that are not parsed yet.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// A client of a server.
    pub fn new(address: SocketAddr, key: Option<&str>) -> Self {
        Self { address, key: key.map(str::to_owned), source: None }
    }

    /// The client with another local address; any of 127.0.0.0/8 will do.
    #[must_use]
    pub fn calling_from(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// The start of a request, without the blank line: request line, `Host` and key.
    pub fn head(&self, method: &str, target: &str) -> String {
        let key = self.key.as_ref().map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n{key}", self.address)
    }

    /// GET.
    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, "", None)
    }

    /// POST with a body.
    pub fn post(&self, target: &str, body: impl AsRef<[u8]>) -> Answer {
        self.request("POST", target, "", Some(body.as_ref()))
    }

    /// Sends a request on a separate connection. `headers` are whole lines, each with its CRLF.
    pub fn request(&self, method: &str, target: &str, headers: &str, body: Option<&[u8]>) -> Answer {
        let answer = self.try_request(method, target, headers, body);
        answer.unwrap_or_else(|error| panic!("{}: no answer: {error}", self.address))
    }

    /// The same, for a server that may not respond.
    ///
    /// # Errors
    /// Why there is no whole response.
    pub fn try_request(
        &self,
        method: &str,
        target: &str,
        headers: &str,
        body: Option<&[u8]>,
    ) -> io::Result<Answer> {
        let length = body.map(|body| format!("Content-Length: {}\r\n", body.len())).unwrap_or_default();
        let head = self.head(method, target) + headers + &length + "Connection: close\r\n\r\n";
        let mut connection = self.try_connect()?;
        connection.send(head.as_bytes());
        connection.send(body.unwrap_or_default());
        connection.try_answer(method)
    }

    /// A POST whose body has these chunks, each written separately.
    pub fn post_chunks(&self, target: &str, chunks: &[&[u8]]) -> Answer {
        let head = self.head("POST", target) + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        let mut connection = self.connect();
        connection.send(head.as_bytes());
        chunks.iter().for_each(|chunk| connection.send(&chunk_of(chunk)));
        connection.send(b"0\r\n\r\n");
        connection.answer_to("POST")
    }

    /// A POST with `Content-Length`, whose body is sent in these writes.
    pub fn post_writes(&self, target: &str, writes: &[&[u8]]) -> Answer {
        let length: usize = writes.iter().map(|write| write.len()).sum();
        let head =
            self.head("POST", target) + &format!("Content-Length: {length}\r\nConnection: close\r\n\r\n");
        let mut connection = self.connect();
        connection.send(head.as_bytes());
        writes.iter().for_each(|write| connection.send(write));
        connection.answer_to("POST")
    }

    /// Sends raw bytes on a separate connection, and reads the response.
    pub fn raw(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut connection = self.connect();
        connection.send(bytes.as_ref());
        connection.answer()
    }

    /// A connection.
    ///
    /// # Panics
    /// It is refused.
    pub fn connect(&self) -> Connection {
        self.try_connect().unwrap_or_else(|error| panic!("{}: {error}", self.address))
    }

    /// A connection, if a server listens.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn try_connect(&self) -> io::Result<Connection> {
        let stream = match self.source {
            None => TcpStream::connect_timeout(&self.address, CONNECT_PATIENCE)?,
            Some(source) => connect_from(source, self.address)?,
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// GET, for a server that may not respond.
    ///
    /// # Errors
    /// Why there is no whole response.
    pub fn try_get(&self, target: &str) -> io::Result<Answer> {
        self.try_request("GET", target, "", None)
    }
}

/// A chunk with its size and line ends (RFC 9112, 7.1).
pub fn chunk_of(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

impl Connection {
    /// Sends bytes. A server that responds early and closes may not read all of them. Its response shows that, so a
    /// failed write is not an error here.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The connection with this timeout for each read.
    ///
    /// # Panics
    /// The time is zero.
    #[must_use]
    pub fn with_patience(self, time: Duration) -> Self {
        self.stream.set_read_timeout(Some(time)).expect("a time above zero");
        self
    }

    /// Shuts down the write side.
    pub fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Reads the response to a request other than HEAD.
    ///
    /// # Panics
    /// No response comes.
    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// Reads the response to a request with this method.
    ///
    /// # Panics
    /// No response comes.
    pub fn answer_to(&mut self, method: &str) -> Answer {
        self.try_answer(method).unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// Reads the response to a request with this method.
    ///
    /// # Errors
    /// The connection ends before the response does, or times out.
    pub fn try_answer(&mut self, method: &str) -> io::Result<Answer> {
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break self.take(end + 4);
            }
            self.fill()?;
        };
        let (status, headers) = parse_head(&head).ok_or_else(|| wrong(&head))?;
        let mut answer = Answer { status, headers, body: Vec::new() };
        if method != "HEAD" && status != 204 && status != 304 && status >= 200 {
            answer.body = self.body(&answer)?;
        }
        Ok(answer)
    }

    /// Bytes that were received and belong to no response.
    pub fn unparsed(&self) -> &[u8] {
        &self.buffer
    }

    fn body(&mut self, answer: &Answer) -> io::Result<Vec<u8>> {
        if answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return self.chunks();
        }
        match answer.header("content-length") {
            Some(length) => {
                let length = length.parse().map_err(|_| wrong(length.as_bytes()))?;
                self.exactly(length)
            }
            None => {
                while self.fill().is_ok() {}
                Ok(std::mem::take(&mut self.buffer))
            }
        }
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size =
                line.split(';').next().and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok());
            let size = size.ok_or_else(|| wrong(line.as_bytes()))?;
            body.extend(self.exactly(size)?);
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            self.line()?;
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = self.take(end + 2);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.fill()?;
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.take(length))
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Reads more bytes; an error if the other side has closed, or on a timeout.
    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        let count = loop {
            match self.stream.read(&mut bytes) {
                // A read with a timeout returns early when the test's process was stopped and continued.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend(bytes.iter().take(count));
        Ok(())
    }

    /// Waits this long for bytes or the end of the connection, and returns whether either came.
    ///
    /// # Panics
    /// The time is zero.
    pub fn hears_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a time above zero");
        let outcome = self.fill();
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        let nothing_yet = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
        outcome.map_or_else(|error| !nothing_yet.contains(&error.kind()), |()| true)
    }

    /// Checks that the server sends nothing more and closes the connection.
    ///
    /// # Panics
    /// It does not.
    pub fn assert_closed(&mut self) {
        let rest = loop {
            if let Err(error) = self.fill() {
                break error;
            }
        };
        let closed =
            [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        assert!(closed.contains(&rest.kind()), "the connection stays open: {rest}");
        assert!(self.buffer.is_empty(), "more came: {}", String::from_utf8_lossy(&self.buffer));
    }
}

/// Connects from a local address.
fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
    rustix::net::connect(&socket, &address)?;
    Ok(TcpStream::from(socket))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn wrong(bytes: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, String::from_utf8_lossy(bytes).into_owned())
}

fn parse_head(head: &[u8]) -> Option<(u16, Vec<(String, String)>)> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.trim_end().split("\r\n");
    let line = lines.next()?;
    // hyper responds to an HTTP/1.0 client with its own version.
    let line = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    let status = line.split(' ').next()?.parse().ok()?;
    let field =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    Some((status, lines.map(field).collect::<Option<_>>()?))
}

/// Percent-encodes every byte, so none has a meaning to a parser of targets.
pub fn percent_encoded(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("%{byte:02x}")).collect()
}
