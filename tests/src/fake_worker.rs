//! A fake worker: a test listens in a tenant's slot, sees what the gateway sends, and answers as it likes, or not at all.

pub mod scripted;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use crate::answer::Answer;
use crate::peers::Server;
use crate::root::Root;
use crate::setup::key_of;
use crate::target::{INSERT, SELECT};
use crate::wait::PATIENCE;

/// An answer as a real worker gives it: 200 with the text `ok`.
pub const SERVED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The listener in the slot.
#[derive(Debug)]
pub struct FakeWorker(TcpListener);

impl FakeWorker {
    /// Listens in a slot.
    ///
    /// # Panics
    /// The port is taken.
    pub fn listen(address: Ipv4Addr, port: u16) -> Self {
        Self(TcpListener::bind((address, port)).expect("a free slot"))
    }

    /// The gateway's next connection.
    ///
    /// # Panics
    /// It cannot be accepted.
    pub fn accept(&self) -> TcpStream {
        let (stream, _) = self.0.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        stream
    }

    /// The gateway's next connection, and the head of the request on it.
    pub fn accept_request(&self) -> (TcpStream, Head) {
        let mut stream = self.accept();
        let head = Head::expect(&mut stream);
        (stream, head)
    }

    /// Reads one request to its end, then replies, or closes without a reply.
    ///
    /// # Panics
    /// The request breaks off.
    pub fn receive(&self, reply: Option<&str>) -> Head {
        let (mut stream, head) = self.accept_request();
        stream.read_exact(&mut vec![0; head.body_bytes()]).expect("the request's body");
        if let Some(reply) = reply {
            stream.write_all(reply.as_bytes()).expect("a gateway that reads");
        }
        head
    }
}

/// A gateway without a pool, and a fake worker in alice's slot.
#[derive(Debug)]
pub struct FakeSystem {
    /// The gateway, with a client that has alice's key.
    pub gateway: Server,
    /// The worker.
    pub worker: FakeWorker,
}

impl FakeSystem {
    /// Starts it.
    pub fn new(root: &Root) -> Self {
        let gateway = Server::gateway(root, &key_of("alice"));
        Self { gateway, worker: FakeWorker::listen(root.address, 1341) }
    }

    /// Sends a request: an insert if there is a body. Each time that the gateway forwards it, the worker gives the next
    /// reply, or closes; after the last one the slot refuses connections. Returns the heads that the worker got, and the
    /// client's answer.
    ///
    /// # Panics
    /// The request does not come as often as there are replies.
    pub fn exchange(
        self,
        headers: &str,
        body: Option<&[u8]>,
        replies: &[Option<&str>],
    ) -> (Vec<Head>, Answer) {
        let (target, method) = if body.is_some() { (INSERT, "POST") } else { (SELECT, "GET") };
        let client = self.gateway.client.clone();
        thread::scope(|scope| {
            let asking = scope.spawn(|| client.request(method, target, headers, body));
            let heads = replies.iter().map(|reply| self.worker.receive(*reply)).collect();
            drop(self.worker);
            (heads, asking.join().expect("the client's answer"))
        })
    }
}

/// The head of a request.
#[derive(Debug)]
pub struct Head(Vec<String>);

impl Head {
    /// Reads a head, and nothing behind it.
    ///
    /// # Errors
    /// The connection ends first.
    pub fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            bytes.extend(byte);
        }
        let text =
            String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Self(text.lines().map(str::to_owned).collect()))
    }

    /// The same, where a request must come.
    ///
    /// # Panics
    /// None comes.
    pub fn expect(stream: &mut TcpStream) -> Self {
        Self::read(stream).expect("a request")
    }

    /// The request line.
    pub fn request_line(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// Each field's name and value.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().skip(1).filter_map(|line| line.split_once(": "))
    }

    /// The values of all fields with this name.
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.fields().filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// The length that the head announces.
    ///
    /// # Panics
    /// It is not a number.
    pub fn body_bytes(&self) -> usize {
        self.values("content-length").first().map_or(0, |length| length.parse().expect("a length"))
    }
}
