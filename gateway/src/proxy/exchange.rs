//! One exchange with a worker on one connection: head and body go there, and the answer comes back, piece by piece. No more
//! than a piece of either body is held here, except the first 64 KiB of the client's, which may have to be sent again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::timeout;
use pingora::protocols::http::v1::client::HttpSession as UpstreamSession;
use pingora::protocols::http::v1::server::HttpSession as Session;
use sq_shared::limits::{ANSWER_HEAD_BYTES, INTERIM_ANSWERS};

use super::admit::Admitted;
use super::body::{self, BodyError};
use super::context::Context;
use super::failure::{Failure, WorkerError};
use super::transfer_timeout::TransferTimeout;
use super::{repeat, worker_socket};
use crate::stream::client;

/// How long a worker may take to ask for a long body. A running one asks at once, and one that is starting does so sooner than
/// this.
const GO_AHEAD_TIME: Duration = repeat::ABSENCE_TIME;

/// The state of the request's body.
enum Sending {
    /// More of it is to come.
    Body,
    /// The worker has the whole request. The client is still watched: it may disconnect, or shut down its sending side and wait.
    Done,
    /// The worker has answered without the body and gets none of it.
    Unwanted,
    /// The worker takes no more, but may have answered. The client's body is not read on: the next worker may get it.
    Broken(WorkerError),
}

/// A request that is being sent to a worker.
pub(super) struct Exchange<'a, 'g> {
    pub(super) session: &'a mut Session,
    pub(super) upstream: &'a mut UpstreamSession,
    pub(super) ctx: &'a mut Context<'g>,
    pub(super) admitted: &'a mut Admitted,
    answer_limit: Duration,
    send_timeout: TransferTimeout,
    sending: Sending,
    /// When the answer's head must be complete. `None` while the client still sends.
    head_deadline: Option<Instant>,
    heads: HeadCount,
    has_head: bool,
}

/// What the worker has sent before the answer's body.
#[derive(Default)]
struct HeadCount {
    bytes: usize,
    interim_answers: usize,
}

impl<'a, 'g> Exchange<'a, 'g> {
    /// Sends the head, and of the body what is already known: that it is empty, or what an earlier attempt read. The answer's
    /// head may take `answer_limit`, and the worker may hold up either body for as long. A body that is too long to be sent
    /// again waits until the worker asks for it, which it does once it has checked the key: a worker that does not know the key
    /// yet, or stops, must not consume it.
    pub(super) async fn begin(
        session: &'a mut Session,
        upstream: &'a mut UpstreamSession,
        ctx: &'a mut Context<'g>,
        admitted: &'a mut Admitted,
        mut head: RequestHeader,
        answer_limit: Duration,
    ) -> Result<Self, Failure> {
        let is_long = !session.is_body_empty() && body::may_be_long(session.req_header());
        if is_long {
            head.insert_header(header::EXPECT, "100-continue").map_err(WorkerError::from)?;
        }
        worker_socket::begin_head(upstream.stream());
        let mut send_timeout = TransferTimeout::new(answer_limit);
        // A worker that answers without reading may have left no space in the socket's buffer.
        let sent = send_timeout.wait(upstream.write_request_header(Box::new(head))).await;
        sent.ok_or(SEND_TIMED_OUT)?.map_err(WorkerError::from)?;
        let mut exchange = Self {
            session,
            upstream,
            ctx,
            admitted,
            answer_limit,
            send_timeout,
            sending: Sending::Body,
            head_deadline: None,
            heads: HeadCount::default(),
            has_head: false,
        };
        if is_long {
            exchange.wait_for_go_ahead().await?;
        }
        if exchange.has_head {
            exchange.sending = Sending::Unwanted;
            return Ok(exchange);
        }
        let kept = exchange.session.get_retry_buffer();
        if kept.is_some() || exchange.session.is_body_empty() {
            exchange.send(kept).await?;
        }
        Ok(exchange)
    }

    /// Waits until the worker asks for the body or answers without it. A worker that does neither gets the body after all (RFC
    /// 9110, 10.1.1).
    async fn wait_for_go_ahead(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + GO_AHEAD_TIME.min(self.answer_limit);
        let mut is_asked_for = false;
        while !is_asked_for && !self.has_head {
            let left = until.saturating_duration_since(Instant::now());
            tokio::select! {
                biased;
                read = self.upstream.read_response() => {
                    self.note_head(read.map_err(WorkerError::from))?;
                    is_asked_for = self.upstream.get_status() == Some(StatusCode::CONTINUE);
                }
                () = client::broken(self.session.stream()) => return Err(Failure::ClientGone),
                () = tokio::time::sleep(left) => is_asked_for = true,
            }
        }
        Ok(())
    }

    /// Notes a head that was read, or why none was.
    fn note_head(&mut self, read: Result<usize, WorkerError>) -> Result<(), WorkerError> {
        let bytes = read.map_err(|error| self.cause(error))?;
        self.has_head = self.heads.is_last(bytes, self.upstream.get_status())?;
        if self.has_head {
            worker_socket::end_head(self.upstream.stream());
        }
        Ok(())
    }

    /// Sends the body until the head of the worker's answer is complete. Interim answers are not passed on: the gateway has
    /// answered a client's `Expect` itself. All heads together have one deadline and one size limit.
    pub(super) async fn wait_for_head(&mut self) -> Result<(), Failure> {
        while !self.has_head {
            let is_done = self.sending.is_done();
            let left = self.head_deadline.map(|end| end.saturating_duration_since(Instant::now()));
            tokio::select! {
                // An early answer must not wait until a fast client has sent its whole body.
                biased;
                read = within(left, self.upstream.read_response()) => self.note_head(read)?,
                piece = read_while_waiting(self.session, is_done), if !self.sending.is_stopped() => {
                    self.send(piece?).await?;
                }
            }
        }
        Ok(())
    }

    /// Passes the answer on: this head, and the body as it comes. If the request's own body has not ended by then, the worker
    /// does not need the rest.
    pub(super) async fn pass_on(&mut self, head: ResponseHeader) -> Result<(), Failure> {
        self.session.write_response_header(Box::new(head)).await?;
        let mut receive_timeout = TransferTimeout::new(self.answer_limit);
        while !self.upstream.is_body_done() {
            let is_done = self.sending.is_done();
            tokio::select! {
                biased;
                read = receive_timeout.wait(self.upstream.read_body_ref()) => {
                    let Some(piece) = read.ok_or(ANSWER_TIMED_OUT)?.map_err(WorkerError::from)? else { break };
                    receive_timeout.moved(piece.len());
                    // One read may bring thousands of short chunks; other tasks must run in between.
                    tokio::task::coop::consume_budget().await;
                    // A read may bring no more than a chunk's size line. Writing an empty piece would end the body.
                    if !piece.is_empty() {
                        self.session.write_body(piece).await?;
                    }
                },
                piece = read_while_answering(self.session, is_done), if !self.sending.is_stopped() => {
                    self.send(piece?).await?;
                }
            }
        }
        self.session.finish_body().await?;
        Ok(())
    }

    /// Whether the worker has the whole request, so that the next one may follow on the connection.
    pub(super) fn is_whole_sent(&self) -> bool {
        self.sending.is_done()
    }

    /// Checks the next piece of the body and sends it. `None` is the body's end.
    async fn send(&mut self, piece: Option<Bytes>) -> Result<(), Failure> {
        let is_last = piece.is_none() || self.session.is_body_done();
        self.check(piece.as_ref(), is_last)?;
        let bytes = piece.as_ref().map_or(0, Bytes::len);
        let sent = self.send_timeout.wait(write(self.upstream, piece, is_last)).await;
        self.send_timeout.moved(bytes);
        self.sending = match sent.unwrap_or(Err(SEND_TIMED_OUT)) {
            Err(error) => {
                self.head_deadline = Some(Instant::now() + self.send_timeout.left());
                Sending::Broken(error)
            }
            Ok(()) if is_last => {
                self.head_deadline = Some(self.ctx.worker_wait.begin() + self.answer_limit);
                Sending::Done
            }
            Ok(()) => Sending::Body,
        };
        Ok(())
    }

    /// Checks the next piece of the body before the worker gets it.
    fn check(&mut self, piece: Option<&Bytes>, is_last: bool) -> Result<(), BodyError> {
        self.admitted.body.push(piece, is_last)?;
        let is_last = is_last || self.admitted.body.is_whole();
        self.admitted.audited.push_body(piece.map(AsRef::as_ref).unwrap_or_default(), is_last);
        if is_last {
            self.ctx.worker_wait.begin();
        }
        Ok(())
    }

    /// Why there is no answer: this error, or an earlier one while the request was sent.
    fn cause(&mut self, error: WorkerError) -> WorkerError {
        if worker_socket::has_exhausted_head(self.upstream.stream()) {
            return head_too_large();
        }
        match std::mem::replace(&mut self.sending, Sending::Done) {
            Sending::Broken(cause) if matches!(error, WorkerError::Died(_)) => cause,
            _ => error,
        }
    }
}

impl Drop for Exchange<'_, '_> {
    fn drop(&mut self) {
        if !self.sending.is_done() {
            worker_socket::forget_unsent(self.upstream.stream());
        }
    }
}

impl HeadCount {
    /// Counts a head of this size and status. Returns whether it is the final answer's.
    fn is_last(&mut self, bytes: usize, status: Option<StatusCode>) -> Result<bool, WorkerError> {
        self.bytes += bytes;
        if self.bytes > ANSWER_HEAD_BYTES {
            return Err(head_too_large());
        }
        // 101 would switch protocols, which the gateway never asks for.
        if !status
            .is_some_and(|status| status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS)
        {
            return Ok(true);
        }
        self.interim_answers += 1;
        if self.interim_answers > INTERIM_ANSWERS {
            let why = format!("more than {INTERIM_ANSWERS} interim answers come before it");
            return Err(WorkerError::Invalid(why.into()));
        }
        Ok(false)
    }
}

/// The client's next input before its answer: a piece of the body, or its end. A client that has shut down its sending side may
/// still wait for the answer; the error comes once it has disconnected.
async fn read_while_waiting(session: &mut Session, is_done: bool) -> Result<Option<Bytes>, Failure> {
    if !session.is_half_closed() {
        let read = session.read_body_or_idle(is_done).await;
        if !session.is_half_closed() {
            return Ok(read?);
        }
    }
    // Boxed, because few clients half-close, and every request would hold the memory for it.
    Box::pin(client::half_closed_client_gone(session.stream())).await;
    Err(Failure::ClientGone)
}

/// The client's next input while its answer goes out. After a complete request nothing is read: it would be the next request,
/// which the answer's head has not taken into account.
async fn read_while_answering(session: &mut Session, is_done: bool) -> Result<Option<Bytes>, Failure> {
    if is_done {
        client::broken(session.stream()).await;
        return Err(Failure::ClientGone);
    }
    Ok(session.read_body_or_idle(is_done).await?)
}

/// Writes a piece of the body to the worker, and the body's end after the last one.
async fn write(
    upstream: &mut UpstreamSession,
    piece: Option<Bytes>,
    is_last: bool,
) -> Result<(), WorkerError> {
    // An empty chunk would end the body.
    if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
        upstream.write_body(&piece).await?;
    }
    if is_last {
        upstream.finish_body().await?;
    }
    Ok(())
}

/// Waits for the worker until `limit`, if there is one.
async fn within<T>(
    limit: Option<Duration>,
    future: impl Future<Output = pingora::Result<T>>,
) -> Result<T, WorkerError> {
    match limit {
        Some(limit) => Ok(timeout(limit, future).await.map_err(|_| ANSWER_TIMED_OUT)??),
        None => Ok(future.await?),
    }
}

impl Sending {
    fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    fn is_stopped(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Unwanted)
    }
}

const SEND_TIMED_OUT: WorkerError = WorkerError::TimedOut("sending the request");
const ANSWER_TIMED_OUT: WorkerError = WorkerError::TimedOut("waiting for the answer");

fn head_too_large() -> WorkerError {
    WorkerError::Invalid(format!("its head is larger than {ANSWER_HEAD_BYTES} bytes").into())
}
