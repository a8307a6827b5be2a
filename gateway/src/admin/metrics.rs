//! `GET /metrics`: the metrics in Prometheus's text format.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus::{TEXT_FORMAT, TextEncoder};

use super::Admin;
use super::refusal::Refusal;

/// The gateway's metrics.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "watch",
    responses((status = 200, description = "The metrics in Prometheus's text format.", body = String, content_type = "text/plain")))]
pub(super) async fn show(State(admin): State<Admin>) -> Response {
    let directory = admin.directory.load();
    let text = directory.gauges().and_then(|gauges| {
        let mut families = admin.metrics.gather(|tenant| directory.tenant(tenant).is_some());
        families.extend(gauges);
        // A family without series, as before the first request, has no text form.
        families.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new().encode_to_string(&families)
    });
    match text {
        Ok(text) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => Refusal::internal(&error, "failed to encode the metrics").into_response(),
    }
}
