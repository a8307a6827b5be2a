//! The dates of answers that hyper makes. Each thread keeps the last one, makes the first at its first connection, and panics at
//! that when the clock stands before 1970; later ones are made only when time has passed.

use std::convert::Infallible;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

/// Makes the first date of this thread, by a connection that ends at once: the clock is right when a server starts, and may
/// stand anywhere when its first client comes.
pub async fn prepare() {
    let answer = |_: Request<_>| async { Ok::<_, Infallible>(Response::new(String::new())) };
    // There is no request, and so nothing that can fail.
    let _ =
        http1::Builder::new().serve_connection(TokioIo::new(tokio::io::empty()), service_fn(answer)).await;
}
