//! One attempt at a request, on one connection to the worker: head and body go there, and the answer comes back, piece by
//! piece. Of either body no more is held here than a piece; but the first 64 KiB of the client's are, to be sent again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{StatusCode, header};
use pingora::http::RequestHeader;
use pingora::prelude::timeout;
use pingora::protocols::http::v1::client::HttpSession as UpstreamSession;
use pingora::protocols::http::v1::server::HttpSession as Session;
use pingora::{Error, ErrorType, ImmutStr, Result};

use sq_shared::limits::{ANSWER_HEAD_BYTES, INTERIM_ANSWERS};

use super::body::BodyMeter;
use super::context::Context;
use super::patience::Patience;
use super::{not_admitted, repeat, worker_socket};
use crate::edge::departure;

/// How long a worker may take to ask for a long body. One that is awake does so at once, and one that is started in less.
const GO_AHEAD_TIME: Duration = repeat::ABSENCE_TIME;

/// How the request's body stands.
enum Sending {
    /// More of it is to come.
    Body,
    /// The worker has the whole request. The client is only watched any more: it may go, or end its side and wait.
    Done,
    /// The worker has answered without the body, and gets none of it.
    Unwanted,
    /// The worker takes no more, but may have answered. What the client sends waits, for the next worker perhaps.
    Broken(Box<Error>),
}

/// A request that is being sent to a worker.
pub(super) struct Exchange<'a> {
    /// With the client.
    pub(super) session: &'a mut Session,
    /// With the worker.
    pub(super) upstream: &'a mut UpstreamSession,
    /// The request's state.
    pub(super) ctx: &'a mut Context,
    answer_limit: Duration,
    /// With a worker that takes the request slowly.
    taking: Patience,
    sending: Sending,
    /// When the head of the answer must be here. There is no such time while the client still sends.
    head_deadline: Option<Instant>,
    heads: HeadCount,
    /// The head of the answer is here.
    has_head: bool,
}

/// What has come of an answer before its body.
#[derive(Default)]
struct HeadCount {
    bytes: usize,
    interim_answers: usize,
}

impl<'a> Exchange<'a> {
    /// Sends the head and what is already known of the body: that the request has no body, or what an earlier attempt read.
    /// The worker may take as long for the head of its answer, and hold up either body. A body that could not be sent again
    /// waits until the worker asks for it, with the key checked: to a worker that has not been told of the key, or goes,
    /// nothing of it is lost.
    ///
    /// # Errors
    /// The worker is gone, or takes nothing.
    pub(super) async fn begin(
        session: &'a mut Session,
        upstream: &'a mut UpstreamSession,
        ctx: &'a mut Context,
        mut head: RequestHeader,
        answer_limit: Duration,
    ) -> Result<Self> {
        let is_long = !session.is_body_empty() && BodyMeter::may_be_long(session.req_header());
        if is_long {
            head.insert_header(header::EXPECT, "100-continue")?;
        }
        worker_socket::begin_head(upstream.stream());
        let mut taking = Patience::new(answer_limit);
        // A worker that answers without reading may have left no room in the socket.
        let sent = taking.wait(upstream.write_request_header(Box::new(head))).await;
        sent.unwrap_or_else(|| Err(held_up())).map_err(Error::into_up)?;
        let (sending, head_deadline) = (Sending::Body, None);
        let (heads, has_head) = (HeadCount::default(), false);
        let mut exchange =
            Self { session, upstream, ctx, answer_limit, taking, sending, head_deadline, heads, has_head };
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

    /// Waits until the worker asks for the body, or answers without. One that says neither gets it all the same (RFC 9110,
    /// 10.1.1).
    async fn wait_for_go_ahead(&mut self) -> Result<()> {
        let until = Instant::now() + GO_AHEAD_TIME.min(self.answer_limit);
        let mut is_asked_for = false;
        while !is_asked_for && !self.has_head {
            let left = until.saturating_duration_since(Instant::now());
            tokio::select! {
                biased;
                read = self.upstream.read_response() => {
                    self.note_head(read)?;
                    is_asked_for = self.upstream.get_status() == Some(StatusCode::CONTINUE);
                }
                () = departure::broken(self.session.stream()) => return Err(gone().into_down()),
                () = tokio::time::sleep(left) => is_asked_for = true,
            }
        }
        Ok(())
    }

    /// Takes note of a head that came, or of why none did.
    fn note_head(&mut self, read: Result<usize>) -> Result<()> {
        let bytes = read.map_err(|error| self.cause(error))?;
        self.has_head = self.heads.is_last(bytes, self.upstream.get_status())?;
        if self.has_head {
            worker_socket::end_head(self.upstream.stream());
        }
        Ok(())
    }

    /// Sends on until the head of the worker's answer comes. Interim answers are not passed on: the gateway has answered a
    /// client's `Expect` itself. All heads together have one deadline and one size.
    ///
    /// # Errors
    /// The worker is gone or too slow, or its answer is not valid; the client is gone, or its body must be refused.
    pub(super) async fn wait_for_head(&mut self) -> Result<()> {
        while !self.has_head {
            let is_done = self.sending.is_done();
            let left = self.head_deadline.map(|end| end.saturating_duration_since(Instant::now()));
            tokio::select! {
                // An early answer is not to wait until a quick client has sent all of its body.
                biased;
                read = within(left, self.upstream.read_response()) => self.note_head(read)?,
                piece = hear(self.session, is_done), if !self.sending.is_broken() => {
                    self.send(piece.map_err(Error::into_down)?).await?;
                }
            }
        }
        Ok(())
    }

    /// Passes the answer's body on, after its head. If the request's own body has not ended by then, the worker does not
    /// need the rest.
    ///
    /// # Errors
    /// One of the two is gone or too slow, or the client's body is not to be taken.
    pub(super) async fn pass_answer(&mut self) -> Result<()> {
        let mut giving = Patience::new(self.answer_limit);
        while !self.upstream.is_body_done() {
            let is_done = self.sending.is_done();
            tokio::select! {
                biased;
                read = giving.wait(self.upstream.read_body_ref()) => {
                    let Some(piece) = read.unwrap_or_else(|| Err(too_slow())).map_err(Error::into_up)? else { break };
                    giving.moved(piece.len());
                    // Thousands of short chunks come in one read, and the others want their turn.
                    tokio::task::coop::consume_budget().await;
                    // Of chunks a read may bring no more than a line. Written, nothing would be the end.
                    if !piece.is_empty() {
                        self.session.write_body(piece).await.map_err(Error::into_down)?;
                    }
                },
                piece = hear_on(self.session, is_done), if !self.sending.is_broken() => {
                    self.send(piece.map_err(Error::into_down)?).await?;
                }
            }
        }
        self.session.finish_body().await.map_err(Error::into_down)?;
        Ok(())
    }

    /// Whether the worker has got the whole request, so that the next one may follow it.
    pub(super) fn is_whole_sent(&self) -> bool {
        self.sending.is_done()
    }

    /// Checks the next piece of the body, and sends it. No piece is the end.
    async fn send(&mut self, piece: Option<Bytes>) -> Result<()> {
        let is_last = piece.is_none() || self.session.is_body_done();
        check(self.ctx, piece.as_ref(), is_last)?;
        let bytes = piece.as_ref().map_or(0, Bytes::len);
        let sent = self.taking.wait(write(self.upstream, piece, is_last)).await;
        self.taking.moved(bytes);
        self.sending = match sent.unwrap_or_else(|| Err(held_up())) {
            Err(error) => {
                self.head_deadline = Some(Instant::now() + self.taking.left());
                Sending::Broken(error.into_up())
            }
            Ok(()) if is_last => {
                self.head_deadline = Some(self.ctx.worker_wait.begin() + self.answer_limit);
                Sending::Done
            }
            Ok(()) => Sending::Body,
        };
        Ok(())
    }

    /// Why there is no answer: the worker went while the request was sent, or after, or it does not send an answer.
    fn cause(&mut self, error: Box<Error>) -> Box<Error> {
        let error = error.into_up();
        // Both of these have bytes of the worker's in their text, as many as it likes.
        if worker_socket::has_used_up_head_room(self.upstream.stream()) {
            return invalid(format!("its head is larger than {ANSWER_HEAD_BYTES} bytes"));
        }
        if *error.etype() == ErrorType::InvalidHTTPHeader {
            return invalid("its head is malformed");
        }
        match std::mem::replace(&mut self.sending, Sending::Done) {
            Sending::Broken(cause) if repeat::is_death(&error) => cause,
            _ => error,
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if !self.sending.is_done() {
            worker_socket::forget_unsent(self.upstream.stream());
        }
    }
}

impl HeadCount {
    /// Counts a head of this size and status: whether it is the answer's own.
    fn is_last(&mut self, bytes: usize, status: Option<StatusCode>) -> Result<bool> {
        self.bytes += bytes;
        if self.bytes > ANSWER_HEAD_BYTES {
            return Err(invalid(format!("its head is larger than {ANSWER_HEAD_BYTES} bytes")));
        }
        // 101 would be another protocol, which the gateway never asks for.
        if !status
            .is_some_and(|status| status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS)
        {
            return Ok(true);
        }
        self.interim_answers += 1;
        if self.interim_answers > INTERIM_ANSWERS {
            return Err(invalid(format!("more than {INTERIM_ANSWERS} interim answers come before it")));
        }
        Ok(false)
    }
}

/// What comes from the client before its answer: the next piece of the body, or its end. A client that sends nothing more
/// may still wait for the answer; the error comes when it does not.
async fn hear(session: &mut Session, is_done: bool) -> Result<Option<Bytes>> {
    if !session.is_half_closed() {
        let heard = session.read_body_or_idle(is_done).await;
        if !session.is_half_closed() {
            return heard;
        }
    }
    // Boxed, so that a request whose client keeps its side open holds no room for it.
    Box::pin(departure::gone(session.stream())).await;
    Err(gone())
}

/// What comes from the client while its answer goes out. Of a request that is complete nothing more is read: what is behind
/// it is the next one, which the answer's head knew nothing of.
async fn hear_on(session: &mut Session, is_done: bool) -> Result<Option<Bytes>> {
    if is_done {
        departure::broken(session.stream()).await;
        return Err(gone());
    }
    session.read_body_or_idle(is_done).await
}

fn gone() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "the client is gone")
}

/// Writes a piece of the body to the worker, or what ends it.
async fn write(upstream: &mut UpstreamSession, piece: Option<Bytes>, is_last: bool) -> Result<()> {
    // In chunks an empty one would be the end.
    if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
        upstream.write_body(&piece).await?;
    }
    if is_last {
        upstream.finish_body().await?;
    }
    Ok(())
}

/// Waits so long at most, if there is a limit.
async fn within<T>(limit: Option<Duration>, future: impl Future<Output = Result<T>>) -> Result<T> {
    match limit {
        Some(limit) => timeout(limit, future).await.unwrap_or_else(|_| Err(too_slow())),
        None => future.await,
    }
}

impl Sending {
    fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    fn is_broken(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Unwanted)
    }
}

fn held_up() -> Box<Error> {
    Error::explain(ErrorType::WriteTimedout, "the worker takes no more of the request")
}

fn too_slow() -> Box<Error> {
    Error::explain(ErrorType::ReadTimedout, "the worker takes too long to answer")
}

/// What the worker sends is not an answer, which is not its death: it is not asked again.
pub(super) fn invalid(why: impl Into<ImmutStr>) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, why).into_up()
}

/// Looks at the next piece of the body, before it goes to the worker.
fn check(ctx: &mut Context, piece: Option<&Bytes>, is_last: bool) -> Result<()> {
    let Some(admitted) = ctx.admitted() else { return Err(not_admitted()) };
    if let Err(error) = admitted.body.push(piece, is_last) {
        ctx.refusal = Some(error.into());
        return Err(Error::new_down(ErrorType::InvalidHTTPHeader));
    }
    let is_last = is_last || admitted.body.is_whole();
    admitted.audited.push_body(piece.map(AsRef::as_ref).unwrap_or_default(), is_last);
    if is_last {
        ctx.worker_wait.begin();
    }
    Ok(())
}
