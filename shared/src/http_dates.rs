//! Makes hyper's first date while the clock is known to be right. hyper keeps a date per thread, makes the first one
//! at the thread's first connection, and panics when the clock is before 1970 then.

use std::convert::Infallible;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

/// Makes this thread's first date, by a connection that ends at once. When the first client connects, the clock may
/// have any value.
pub async fn prepare() {
    let answer = |_: Request<_>| async { Ok::<_, Infallible>(Response::new(String::new())) };
    // There is no request that could fail.
    let _ =
        http1::Builder::new().serve_connection(TokioIo::new(tokio::io::empty()), service_fn(answer)).await;
}
