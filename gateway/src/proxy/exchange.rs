//! One attempt at a request, on one connection to the worker: head and body go there, and the answer comes back, piece by
//! piece. Of either body no more is held here than a piece; but the first 64 KiB of the client's are, to be sent again.

use std::time::Duration;

use bytes::Bytes;
use pingora::http::RequestHeader;
use pingora::prelude::timeout;
use pingora::protocols::http::v1::client::HttpSession as UpstreamSession;
use pingora::protocols::http::v1::server::HttpSession as Session;
use pingora::{Error, ErrorType, Result};

use super::context::Context;
use super::not_admitted;

/// How the request's body stands.
enum Sending {
    /// More of it is to come.
    Body,
    /// The worker has the whole request. The client is only watched any more: it may go.
    Done,
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
    write_timeout: Option<Duration>,
    sending: Sending,
}

impl<'a> Exchange<'a> {
    /// Sends the head, and what is known of the body: that there is none, or what was read for an earlier attempt.
    ///
    /// # Errors
    /// The worker is gone.
    pub(super) async fn begin(
        session: &'a mut Session,
        upstream: &'a mut UpstreamSession,
        ctx: &'a mut Context,
        head: RequestHeader,
        write_timeout: Option<Duration>,
    ) -> Result<Self> {
        upstream.write_request_header(Box::new(head)).await.map_err(Error::into_up)?;
        let mut exchange = Self { session, upstream, ctx, write_timeout, sending: Sending::Body };
        let kept = exchange.session.get_retry_buffer();
        if kept.is_some() || exchange.session.is_body_empty() {
            exchange.send(kept).await?;
        }
        Ok(exchange)
    }

    /// Sends on until the head of the worker's answer comes. An interim answer is for who asked for one, and the gateway
    /// never does.
    ///
    /// # Errors
    /// The worker is gone or too slow, the client is, or its body is not to be taken.
    pub(super) async fn wait_for_head(&mut self) -> Result<()> {
        loop {
            let is_done = self.sending.is_done();
            tokio::select! {
                // An early answer is not to wait until a quick client has sent all of its body.
                biased;
                read = self.upstream.read_response() => {
                    read.map_err(|error| self.cause(error))?;
                    if self.upstream.get_status().is_some_and(|status| !status.is_informational()) {
                        return Ok(());
                    }
                }
                piece = self.session.read_body_or_idle(is_done), if !self.sending.is_broken() => {
                    self.send(piece.map_err(Error::into_down)?).await?;
                }
            }
        }
    }

    /// Passes the answer's body on, after its head. If the request's own body has not ended by then, the worker does not
    /// need the rest.
    ///
    /// # Errors
    /// One of the two is gone or too slow, or the client's body is not to be taken.
    pub(super) async fn pass_answer(&mut self) -> Result<()> {
        while !self.upstream.is_body_done() {
            let is_done = self.sending.is_done();
            tokio::select! {
                biased;
                piece = self.upstream.read_body_ref() => match piece.map_err(Error::into_up)? {
                    // Of chunks a read may bring no more than a line. Written, nothing would be the end.
                    Some([]) => {}
                    Some(piece) => _ = self.session.write_body(piece).await.map_err(Error::into_down)?,
                    None => break,
                },
                piece = self.session.read_body_or_idle(is_done), if !self.sending.is_broken() => {
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
        let sent = match self.write_timeout {
            Some(limit) => {
                timeout(limit, self.write(piece, is_last)).await.unwrap_or_else(|_| Err(held_up()))
            }
            None => self.write(piece, is_last).await,
        };
        self.sending = match sent {
            Err(error) => Sending::Broken(error.into_up()),
            Ok(()) if is_last => Sending::Done,
            Ok(()) => Sending::Body,
        };
        Ok(())
    }

    async fn write(&mut self, piece: Option<Bytes>, is_last: bool) -> Result<()> {
        // In chunks an empty one would be the end.
        if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
            self.upstream.write_body(&piece).await?;
        }
        if is_last {
            self.upstream.finish_body().await?;
        }
        Ok(())
    }

    /// Why there is no answer: the worker went while the request was sent, or after.
    fn cause(&mut self, error: Box<Error>) -> Box<Error> {
        match std::mem::replace(&mut self.sending, Sending::Done) {
            Sending::Broken(cause) => cause,
            Sending::Body | Sending::Done => error.into_up(),
        }
    }
}

impl Sending {
    fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    fn is_broken(&self) -> bool {
        matches!(self, Self::Broken(_))
    }
}

fn held_up() -> Box<Error> {
    Error::explain(ErrorType::WriteTimedout, "the worker takes no more of the body")
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
