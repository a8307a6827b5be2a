//! Serves the operator's connections with the router.

use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use sq_shared::operator_port;
use sq_shared::registry::lock::LOCK_PATIENCE;
use tokio::net::TcpListener;

use super::envelope::Client;
use crate::tenants::remove::WORKER_END_TIMEOUT;

/// How long a connection may take, question and answer together: the longest request is the removal of a tenant whose
/// worker still serves; it has the registry's lock twice, and its answer must be taken too.
const CONNECTION_TIMEOUT: Duration =
    Duration::from_secs(WORKER_END_TIMEOUT.as_secs() + 2 * LOCK_PATIENCE.as_secs() + 20);

/// Accepts until `end`, and then finishes what is in flight.
pub(super) async fn accept(listener: TcpListener, router: Router, end: impl Future<Output = ()>) {
    let router = TowerToHyperService::new(router);
    let answer = move |client, mut request: Request<Incoming>| {
        request.extensions_mut().insert(Client(client));
        router.call(request)
    };
    operator_port::serve(listener, CONNECTION_TIMEOUT, answer, end).await;
}
