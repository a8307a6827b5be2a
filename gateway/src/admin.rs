//! The operator's door, on a loopback listener of its own: health, metrics, and the API that changes the registry.

mod authorise;
mod body;
mod envelope;
mod keys;
mod listener;
mod liveness;
mod metrics;
mod openapi;
mod overview;
mod page;
mod pool;
mod refusal;
mod reload;
mod stats;
mod tenants;

use std::io;
use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::{Extension, Router};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::directory::SharedDirectory;
use crate::directory::reload::Reloader;
use crate::listen::{Listener, Listening};
use crate::metrics::Metrics;
use refusal::Refusal;

/// What the answers are made of.
#[derive(Clone)]
pub struct Admin {
    /// The snapshot in force.
    pub directory: SharedDirectory,
    /// What has been counted.
    pub metrics: Arc<Metrics>,
    /// Puts in force what was changed.
    pub reloader: Arc<Reloader>,
}

/// Serves until `end`, and then finishes what is in flight.
///
/// # Errors
/// The runtime cannot take the socket over.
pub async fn serve(listening: Listening, admin: Admin, end: impl Future<Output = ()>) -> io::Result<()> {
    match listening.listen()? {
        Listener::Tcp(listener) => listener::accept(listener, router(admin), end).await,
        // The config has no socket file for the operator.
        Listener::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
    }
    Ok(())
}

/// Every route stands here once, with its description: `routes!` takes no handler that has none.
fn router(admin: Admin) -> Router {
    let open = OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(liveness::health))
        .routes(routes!(liveness::ready))
        .routes(routes!(metrics::answer))
        .routes(routes!(openapi::answer));
    let keyed = OpenApiRouter::default()
        .routes(routes!(tenants::list))
        .routes(routes!(tenants::add))
        .routes(routes!(tenants::show, tenants::change, tenants::remove))
        .route(tenants::ADD, get(tenants::show).patch(tenants::change).delete(tenants::remove))
        .routes(routes!(stats::show))
        .routes(routes!(keys::add))
        .routes(routes!(keys::revoke))
        .routes(routes!(reload::now));
    let keyed =
        openapi::mark_keyed(keyed).route_layer(from_fn_with_state(admin.clone(), authorise::require_key));
    let (router, document) = open.merge(keyed).split_for_parts();
    router
        .merge(page::router(admin.clone()))
        .method_not_allowed_fallback(async || Refusal::method_not_allowed())
        .fallback(async || Refusal::unknown_route())
        .layer(Extension(openapi::text(document)))
        .layer(from_fn_with_state(admin.clone(), envelope::wrap))
        .with_state(admin)
}

impl Admin {
    /// Does what waits for files. It is done to its end, even when the client goes away meanwhile.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reloader) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let reloader = Arc::clone(&self.reloader);
        let done = tokio::task::spawn_blocking(move || work(&reloader)).await;
        done.unwrap_or_else(|error| Err(Refusal::not_done(&error)))
    }
}
