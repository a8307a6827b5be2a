//! The client's connection around a request: how it is read, what follows on it, and when it is closed.

use std::pin::pin;
use std::task::Waker;
use std::time::Instant;

use http::{Method, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::v1::server::HttpSession as Session;
use sq_shared::limits::{BODY_WINDOW, LINGER_BYTES, LINGER_TIME};

use super::body;
use super::context::Context;
use super::worker_answer;
use crate::stream::client;

pub(super) fn set_up(session: &mut Session, ctx: &Context<'_>) {
    // No protocol is ever switched, so a requested upgrade is ignored (RFC 9110, 7.8).
    session.req_header_mut().remove_header(&header::UPGRADE);
    // A second request that comes before the first one's answer must not cut that answer off.
    session.set_pipelining_enabled(true);
    session.set_read_timeout(Some(BODY_WINDOW));
    session.set_total_drain_timeout(Some(LINGER_TIME));
    // pingora accepts chunk lines that another server might end elsewhere (an LF in an extension, an empty size), so nothing
    // after a chunked body may be taken for a request.
    if session.req_header().headers.contains_key(header::TRANSFER_ENCODING) {
        session.set_server_keepalive(None);
    }
    close_if_last(session, ctx);
}

/// Announces in the answer that the connection is closed after it, if the gateway shuts down or another request has already
/// been read.
pub(super) fn close_if_last(session: &mut Session, ctx: &Context<'_>) {
    if ctx.live.phase.borrow().is_ending() || has_next_request(session, ctx) {
        session.set_server_keepalive(None);
    }
}

/// Whether more than the request has been read. (After a chunked body the connection is closed anyway.)
fn has_next_request(session: &Session, ctx: &Context<'_>) -> bool {
    let after_head = client::bytes_read(session.stream()).saturating_sub(ctx.head_end);
    after_head > 0 && after_head > body::declared_bytes(session.req_header()).unwrap_or(0)
}

/// Prepares the connection for the answer: notices what the client has sent after its request by now, which may be the end of
/// its sending side or another request. What comes later is found when the next head is read.
pub(super) fn before_answer(session: &mut Session, ctx: &Context<'_>) {
    if client::may_have_input(session.stream()) && session.is_body_done() {
        let mut read = pin!(tokio::task::unconstrained(session.read_body_or_idle(true)));
        // A client that is gone is noticed when its answer is written.
        let _ = read.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
    }
    close_if_last(session, ctx);
}

/// Answers a head that the edge accepted and pingora does not.
pub(super) async fn write_bad_request(session: &mut Session) {
    let Ok(mut head) = ResponseHeader::build(StatusCode::BAD_REQUEST, Some(3)) else { return };
    if head.insert_header(header::CONTENT_LENGTH, 0).is_ok() {
        // The client may be gone.
        let _ = session.write_response_header(Box::new(head)).await;
    }
    session.shutdown().await;
}

/// Whether the client waits for a go-ahead before it sends its body (RFC 9110, 10.1.1).
pub(super) fn expects_continue(request: &RequestHeader) -> bool {
    let expect = request.headers.get(header::EXPECT);
    request.version == Version::HTTP_11
        && expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Tells the client to send its body. pingora would take this for a final answer before the body's end, and close the
/// connection after the request.
pub(super) async fn write_continue(session: &mut Session) -> pingora::Result<()> {
    session.set_close_on_response_before_downstream_finish(false);
    session.write_continue_response().await?;
    session.set_close_on_response_before_downstream_finish(true);
    Ok(())
}

/// Whether only the connection's end delimits the body of this answer (RFC 9112, 6.3).
pub(super) fn ends_with_connection(answer: &ResponseHeader, request: &RequestHeader) -> bool {
    let is_framed = |name| answer.headers.contains_key(name);
    !is_framed(header::CONTENT_LENGTH)
        && !is_framed(header::TRANSFER_ENCODING)
        && may_have_body(answer, request)
}

pub(super) fn may_have_body(answer: &ResponseHeader, request: &RequestHeader) -> bool {
    let status_has_none = answer.status.is_informational() || worker_answer::has_no_body(answer.status);
    request.method != Method::HEAD && !status_has_none
}

/// Makes an answer that was cut off end with a reset if its client could take it for complete.
pub(super) fn reset_if_cut_off(session: &Session) {
    let head = session.response_written();
    if head.is_some_and(|head| ends_with_connection(head, session.req_header())) {
        client::reset_on_close(session.stream());
    }
}

/// Reads the rest of the body for a while. An immediate close would make the kernel reset the connection, and the reset can
/// overtake the answer (RFC 9112, 9.6). If the client still sends after that, the connection is closed: pingora would read
/// its body to the end.
pub(super) async fn linger(session: &mut Session, ctx: &mut Context<'_>) {
    if session.is_body_done() {
        return;
    }
    ctx.answered = Some(Instant::now());
    let discard = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            match session.read_body_bytes().await {
                Ok(Some(piece)) => left = left.saturating_sub(piece.len()),
                _ => return,
            }
        }
        // A proxy that sends as fast as it is read from looks for an answer only when it is held up. So for the rest of the
        // time the connection is neither read nor closed: the proxy's client would get a 502 after a reset.
        std::future::pending::<()>().await;
    };
    let _ = tokio::time::timeout(LINGER_TIME, discard).await;
    if !session.is_body_done() {
        session.set_server_keepalive(None);
    }
}
