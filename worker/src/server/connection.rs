//! One connection, from its first byte to its end.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sq_shared::connection_places::{Place, Stage};
use sq_shared::limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tracing::debug;

use crate::server::activity::Busy;
use crate::server::joined_writes::JoinedWrites;
use crate::server::request;
use crate::server::worker::Worker;

/// The longest target that the gateway sends. What a client may not send in one is percent-encoded there, and
/// so gets up to three times as long; longer ones than this the HTTP library refuses.
const TARGET_BYTES: usize = 64 * 1024;

/// The fields of a head, names and all. The gateway builds each head anew: host, key, id, the body's type and
/// framing, the trace (at most 580 bytes), and the condition and names of a write. All but the type and the
/// condition are short (a key has at most 512 bytes); those two are the client's own, together as long as a head
/// may be there by default. It also holds the whole head of a client that asks a worker without a gateway.
const FIELD_BYTES: usize = 64 * 1024;

/// The method, the version, and the fields that the gateway sets itself.
const OWN_BYTES: usize = 4 * 1024;

/// The largest head, which is also what hyper reads and writes at once at most.
const HEAD_BYTES: usize = TARGET_BYTES + FIELD_BYTES + OWN_BYTES;

/// How long a worker that stops waits for the first head of a connection. The gateway sends it as it connects.
const FIRST_HEAD_AT_STOP: Duration = Duration::from_secs(2);
const LATE_HEAD_AT_STOP: Duration = Duration::from_millis(100);

/// Serves a connection until the client closes it, or until the worker stops and no request is left.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    worker: Rc<Worker>,
    mut stopping: watch::Receiver<bool>,
    place: Option<Place>,
) {
    let caller = Rc::new(Caller {
        id: worker.next_connection(),
        place,
        is_known: Cell::new(false),
        waiting: RefCell::new(Some(worker.busy())),
        came: Notify::new(),
    });
    let stops = stopping.clone();
    let service = service_fn(|request| {
        let (worker, busy, stops) = (Rc::clone(&worker), worker.busy(), stops.clone());
        let caller = Rc::clone(&caller);
        caller.has_come();
        async move {
            let mut response = request::answer(&worker, &caller, request, busy).await;
            if *stops.borrow() {
                // Says so before it closes: the client sends its next request elsewhere, and loses none.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .title_case_headers(true)
            // A client that has sent all that it will may still wait for its answer (RFC 9112, 9.6). One that is gone is
            // noticed when it is written to.
            .half_close(true)
            // The gateway dates its answers itself.
            .auto_date_header(!worker.is_of_pool())
            // It runs from the moment hyper waits for a head, so it bounds an idle connection too.
            .header_read_timeout(limits::WORKER_KEEPALIVE_TIMEOUT)
            // Of fields it takes 100, `limits::HEADER_FIELDS`, for which it has room without asking for memory.
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(JoinedWrites(stream)), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = caller.may_stop(&mut stopping) => {
            if caller.is_silent() {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(connection_id = caller.id, %error, "connection ended early");
    }
}

/// A failure here costs speed or a later time-out, never an answer.
pub(super) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    // A client that takes nothing of its answer for so long is cut off by the kernel.
    let patience_ms = u32::try_from(limits::WORKER_WRITE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream.as_fd(), patience_ms);
}

/// The client of a connection. Until the first request has come its client believes that it will be served, so the worker is
/// not idle, and a stop waits for it a while.
pub(super) struct Caller {
    pub(super) id: u64,
    place: Option<Place>,
    is_known: Cell<bool>,
    waiting: RefCell<Option<Busy>>,
    came: Notify,
}

impl Caller {
    /// It has sent a right key, and keeps its place from now on.
    pub(super) fn note_known(&self) {
        if !self.is_known.replace(true)
            && let Some(place) = &self.place
        {
            place.enter(Stage::InService);
        }
    }

    fn has_come(&self) {
        if self.waiting.borrow_mut().take().is_some() {
            self.came.notify_one();
        }
    }

    /// Whether it has sent no whole head yet.
    fn is_silent(&self) -> bool {
        self.waiting.borrow().is_some()
    }

    /// Ends when the worker stops and the first request is there, or has had its time.
    async fn may_stop(&self, stopping: &mut watch::Receiver<bool>) {
        // The sender is gone only after it has said so.
        let _ = stopping.wait_for(|stopping| *stopping).await;
        // The second wait lets in what came while this thread was busy.
        for patience in [FIRST_HEAD_AT_STOP, LATE_HEAD_AT_STOP] {
            if self.is_silent() {
                let _ = timeout(patience, self.came.notified()).await;
            }
        }
    }
}
