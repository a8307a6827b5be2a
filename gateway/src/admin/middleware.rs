//! Wraps every request: checks `Host`, gives refusals their body, sets the headers that all responses have, and logs.

use std::net::IpAddr;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sq_shared::headers::{PROBLEM_JSON, lookup};
use sq_shared::host;
use sq_shared::loopback::names_loopback;
use sq_shared::problem::{Code, Problem};
use sq_shared::request_id::request_id;

use super::Admin;
use super::refusal::Refusal;
use crate::proxy::target::{logged_method, logged_path};

/// The address of a request's client.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// Handles a request, unless its `Host` is invalid or does not name this machine.
pub(super) async fn handle(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let client = request.extensions().get().map(|ClientAddress(address)| *address);
    let is_safe = request.method().is_safe();
    let (method, path) = (logged_method(request.method()).to_owned(), logged_path(request.uri().path()));
    let host = host::check(request.version(), request.uri(), request.headers());
    let is_local =
        admin.directory.load().config.gateway.admin_allow_remote || names_loopback(request.headers());
    let mut response = match host {
        Err(error) => Refusal(error.problem()).into_response(),
        Ok(()) if !is_local => misdirected().into_response(),
        Ok(()) => next.run(request).await,
    };
    let refusal = response.extensions_mut().remove::<Refusal>();
    if let Some(refusal) = &refusal {
        write_problem(&mut response, &refusal.0, &id);
    }
    // A status page polls every two seconds, so only changes and refusals are logged. The query and the body are not.
    if refusal.is_some() || !is_safe {
        let code = refusal.map(|refusal| refusal.0.code.as_str()).unwrap_or_default();
        let client = client.map(|client| client.to_string()).unwrap_or_default();
        let (request_id, status) = (id.to_str().unwrap_or_default(), response.status().as_u16());
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::info!(target: "admin", request_id, client, method, path, status, code, duration_us);
    }
    let headers = response.headers_mut();
    headers.insert(lookup::X_REQUEST_ID, id);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn write_problem(response: &mut Response, problem: &Problem, id: &HeaderValue) {
    *response.body_mut() = Body::from(problem.to_json(id.to_str().unwrap_or_default()));
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    for (name, value) in problem.header_fields() {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value.as_ref())) {
            headers.insert(name, value);
        }
    }
}

fn misdirected() -> Refusal {
    Refusal::new(
        Code::Misdirected,
        "Ask for a loopback address or localhost: the admin API answers to no other Host, so that no page of the web \
         can reach it through your browser. To reach it from elsewhere, set gateway.admin_allow_remote = true",
    )
}
