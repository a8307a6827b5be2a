//! Accepts the operator's connections, bounded in number, size and time: one request a connection.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sq_shared::registry::lock::LOCK_PATIENCE;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::envelope::Client;
use crate::tenants::remove::WORKER_END_TIMEOUT;

/// More than a scraper, some status pages and a provisioning script need at once. The next one waits.
const CONNECTIONS: u32 = 64;

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest head, in bytes; hyper takes no buffer below 8 KiB.
const HEAD_BYTES: usize = 64 << 10;

/// How long a connection may take, question and answer together: the longest request is the removal of a tenant whose
/// worker still serves; it has the registry's lock twice, and its answer must be taken too.
const CONNECTION_TIMEOUT: Duration =
    Duration::from_secs(WORKER_END_TIMEOUT.as_secs() + 2 * LOCK_PATIENCE.as_secs() + 20);

/// How long to wait after a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long requests in flight may take at the end. A browser keeps connections that it never uses: they must not hold
/// up a stop. A change whose answer is not waited for is still done, if it takes no longer than the process has.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Accepts until `end`, and then finishes what is in flight.
pub(super) async fn accept(listener: TcpListener, router: Router, end: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS as usize));
    let mut end = pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = accept_one(&listener, &places) => accepted,
            () = &mut end => break,
        };
        match accepted {
            Ok((stream, client, place)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    // Too slow is too slow: the connection is dropped.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serve(stream, client, router)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the admin API");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // All places are back when the last connection has ended.
    let _ = tokio::time::timeout(END_TIMEOUT, places.acquire_many(CONNECTIONS)).await;
}

async fn accept_one(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, client) = listener.accept().await?;
    Ok((stream, client.ip(), place))
}

async fn serve(stream: TcpStream, client: IpAddr, router: Router) {
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES);
    connection.keep_alive(false);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Client(client));
        router.call(request)
    });
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the admin API broke off");
    }
}
