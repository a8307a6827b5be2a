//! What a hostile worker does with a request, step by step, and what the gateway's client may see of it.

use sq_tests::fake_worker::scripted::Step;

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
