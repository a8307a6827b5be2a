//! What a hostile worker does with a request, step by step, and what the gateway's client may get to see of it.

/// A behaviour under its name.
pub(super) struct Behaviour {
    pub(super) name: &'static str,
    pub(super) request: Request,
    pub(super) steps: Vec<Step>,
    pub(super) verdict: Verdict,
}

/// What the client asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// A read.
    Select,
    /// The head of a read.
    Head,
    /// A write with a body of so many bytes. The worker reads it before the first step only if it is short.
    Update(usize),
}

/// A body up to here is read by the worker before it acts; of a longer one it reads nothing.
pub(super) const READ_BODY_BYTES: usize = 1024;

/// One thing that the worker does. A step that fails because the gateway has closed the connection is the last one.
#[derive(Clone)]
pub(super) enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends bytes, each by itself.
    Bytewise(Vec<u8>),
    /// Sends the same bytes again and again, until the gateway closes.
    Flood(Vec<u8>),
    /// Sends the same byte again and again, one in 50 ms, until the gateway closes.
    Drip(u8),
    /// Does nothing for so many milliseconds.
    Pause(u64),
    /// Does nothing until the gateway closes.
    Wait,
    /// Reads 64 bytes of the request in 100 ms, until the gateway closes.
    Sip,
    /// Sends no more, but keeps the connection.
    HalfClose,
    /// Closes.
    Close,
    /// Closes with a reset.
    Reset,
}

/// What the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A whole 200 with this text.
    Served(&'static str),
    /// A whole answer of this status, without a text.
    Empty(u16),
    /// An error of the gateway's own: 503 `worker_unavailable` to a read, 502 `worker_failed` to a write.
    Refused,
    /// 504 `worker_timeout`.
    Late,
    /// The beginning of an answer, which is never taken for a whole one.
    BrokenOff,
}

/// What must not reach a client, wherever a worker puts it.
pub(super) const MARK: &str = "injected";

/// An answer as a good worker gives it.
pub(super) const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A worker that reads the request and does this.
pub(super) fn does(name: &'static str, steps: Vec<Step>, verdict: Verdict) -> Behaviour {
    Behaviour { name, request: Request::Select, steps, verdict }
}

/// A worker that sends this text, and then waits for the next request.
pub(super) fn sends(name: &'static str, text: impl Into<Vec<u8>>, verdict: Verdict) -> Behaviour {
    does(name, vec![Step::Send(text.into())], verdict)
}

/// A worker that sends this text, and closes.
pub(super) fn sends_and_closes(name: &'static str, text: impl Into<Vec<u8>>, verdict: Verdict) -> Behaviour {
    does(name, vec![Step::Send(text.into()), Step::Close], verdict)
}

/// A worker that answers well, but for these fields.
pub(super) fn adds(name: &'static str, fields: &str, verdict: Verdict) -> Behaviour {
    sends(name, format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: 2\r\n\r\nok"), verdict)
}

impl Behaviour {
    /// The same with a request for the head alone.
    pub(super) fn under_head(mut self) -> Self {
        self.request = Request::Head;
        self
    }

    /// The same with a write of so many bytes.
    pub(super) fn under_update(mut self, body_bytes: usize) -> Self {
        self.request = Request::Update(body_bytes);
        self
    }
}
