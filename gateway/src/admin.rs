//! The admin listener on its own loopback address: health, metrics, the status page, and the API that changes the
//! registry.

mod middleware;
mod authorise;
mod tenants;
mod keys;
mod stats;
mod reload;
mod liveness;
mod metrics;
mod openapi;
mod page;
mod overview;
mod pool;
mod body;
mod refusal;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::{Extension, Router};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use sq_shared::operator_port;
use sq_shared::registry::lock::LOCK_PATIENCE;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::directory::SharedDirectory;
use crate::directory::reload::Reloader;
use crate::listen::{Listener, Listening};
use crate::metrics::Metrics;
use crate::tenants::remove::WORKER_END_TIMEOUT;
use middleware::ClientAddress;
use refusal::Refusal;

/// How long a connection may take for request and response. The longest request removes a tenant whose worker still
/// serves: it locks the registry twice, and its response must be sent too.
const CONNECTION_TIMEOUT: Duration =
    Duration::from_secs(WORKER_END_TIMEOUT.as_secs() + 2 * LOCK_PATIENCE.as_secs() + 20);

/// The state that handlers share.
#[derive(Clone)]
pub(crate) struct Admin {
    pub directory: SharedDirectory,
    pub metrics: Arc<Metrics>,
    /// Applies changes of the registry.
    pub reloader: Arc<Reloader>,
}

/// Serves until `end`, then finishes the requests in flight.
pub(crate) async fn serve(
    listening: Listening,
    admin: Admin,
    end: impl Future<Output = ()>,
) -> io::Result<()> {
    let Listener::Tcp(listener) = listening.listen()? else {
        // The config allows no socket file here.
        return Err(io::ErrorKind::Unsupported.into());
    };
    let router = TowerToHyperService::new(router(admin));
    let respond = move |client, mut request: Request<Incoming>| {
        request.extensions_mut().insert(ClientAddress(client));
        router.call(request)
    };
    operator_port::serve(listener, CONNECTION_TIMEOUT, respond, end).await;
    Ok(())
}

/// Lists every route once; `routes!` accepts only handlers with a description.
fn router(admin: Admin) -> Router {
    let open = OpenApiRouter::with_openapi(openapi::base_document())
        .routes(routes!(liveness::health))
        .routes(routes!(liveness::ready))
        .routes(routes!(metrics::show))
        .routes(routes!(openapi::show));
    let keyed = OpenApiRouter::default()
        .routes(routes!(tenants::list))
        .routes(routes!(tenants::add))
        .routes(routes!(tenants::show, tenants::change, tenants::remove))
        .route(tenants::ADD_PATH, get(tenants::show).patch(tenants::change).delete(tenants::remove))
        .routes(routes!(stats::show))
        .routes(routes!(keys::add))
        .routes(routes!(keys::revoke))
        .routes(routes!(reload::reload));
    let keyed =
        openapi::describe_key(keyed).route_layer(from_fn_with_state(admin.clone(), authorise::require_key));
    let (router, document) = open.merge(keyed).split_for_parts();
    router
        .merge(page::router(admin.clone()))
        .method_not_allowed_fallback(async || Refusal::method_not_allowed())
        .fallback(async || Refusal::unknown_route())
        .layer(Extension(openapi::finish(document)))
        .layer(from_fn_with_state(admin.clone(), middleware::handle))
        .with_state(admin)
}

impl Admin {
    /// Runs work that waits for files. It runs to its end even if the client disconnects.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reloader) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let reloader = Arc::clone(&self.reloader);
        let result = tokio::task::spawn_blocking(move || work(&reloader)).await;
        result.unwrap_or_else(|error| Err(Refusal::not_finished(&error)))
    }
}
