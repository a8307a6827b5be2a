//! Serves one connection with hyper.

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;

use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sq_shared::connections::Place;
use sq_shared::limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::debug;

use crate::server::client::Client;
use crate::server::joined_writes::JoinedWrites;
use crate::server::request;
use crate::server::worker::Worker;

/// The longest request target that the gateway sends. It percent-encodes bytes that a target may not have, which makes
/// the target up to three times as long as the client's; the `http` crate refuses longer ones than this.
const TARGET_BYTES: usize = 64 * 1024;

/// The header fields. The gateway rebuilds each head from a few known fields. All of them are short but the content type
/// and the condition, which are the client's own; together these are as long as a client's head may be by default. It is
/// also enough for the whole head of a client that connects without a gateway.
const FIELD_BYTES: usize = 64 * 1024;

/// The method, the version, and the fields that the gateway sets itself.
const OWN_BYTES: usize = 4 * 1024;

/// The largest head. It is also the most that hyper reads or writes at once.
const HEAD_BYTES: usize = TARGET_BYTES + FIELD_BYTES + OWN_BYTES;

/// Serves a connection until the client closes it, or until the worker stops and no request is in flight.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    worker: Rc<Worker>,
    mut stopping: watch::Receiver<bool>,
    place: Option<Place>,
) {
    let client = Rc::new(Client::new(worker.next_connection(), place, worker.activity.busy()));
    let stops = stopping.clone();
    let service = service_fn(|request| {
        let (worker, busy, stops) = (Rc::clone(&worker), worker.activity.busy(), stops.clone());
        let client = Rc::clone(&client);
        client.note_request();
        async move {
            let mut response = request::answer(&worker, &client, request, busy).await;
            if *stops.borrow() {
                // Announces the close, so that the client sends its next request on another connection.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .title_case_headers(true)
            // A client that has closed its sending side may still read its answer (RFC 9112, 9.6).
            .half_close(true)
            // The gateway sets the date itself.
            .auto_date_header(!worker.is_of_pool())
            // Also bounds an idle connection: hyper starts it when it begins to wait for a head.
            .header_read_timeout(limits::WORKER_KEEPALIVE_TIMEOUT)
            // hyper's default of 100 fields is `limits::HEADER_FIELDS`; setting `max_headers` would make hyper allocate.
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(JoinedWrites(stream)), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = client.may_stop(&mut stopping) => {
            if client.awaits_first_request() {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(connection_id = client.id, %error, "connection ended early");
    }
}

/// Sets socket options. Without them a connection still works, only slower or with a later timeout.
pub(super) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    // The kernel resets the connection of a client that reads nothing of its answer for this long.
    let patience_ms = u32::try_from(limits::WORKER_WRITE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream.as_fd(), patience_ms);
}
