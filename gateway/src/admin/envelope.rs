//! What every answer carries, the name by which the operator's door must be asked, and the line that is logged.

use std::net::IpAddr;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sq_shared::headers::PROBLEM_JSON;
use sq_shared::host;
use sq_shared::loopback::names_loopback;
use sq_shared::problem::{Code, Problem};
use sq_shared::request_id::request_id;

use super::Admin;
use super::refusal::Refusal;
use crate::proxy::target::{logged_method, logged_path};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// From where a request came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client(pub(super) IpAddr);

/// Answers a request, or refuses it when it came by a foreign name or by none; a refusal gets its body here.
pub(super) async fn wrap(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let client = request.extensions().get().map(|Client(address)| *address);
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
        write(&mut response, &refusal.0, &id);
    }
    if refusal.is_some() || !is_safe {
        let code = refusal.map(|refusal| refusal.0.code.as_str()).unwrap_or_default();
        log(&Asked { client, method, path, id: &id, started }, response.status().as_u16(), code);
    }
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, id);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What a line says of a request. The query is not in it, nor is the body.
struct Asked<'a> {
    client: Option<IpAddr>,
    method: String,
    path: String,
    id: &'a HeaderValue,
    started: Instant,
}

/// What was changed and what was refused leaves a line; a page that looks every two seconds does not.
fn log(asked: &Asked<'_>, status: u16, code: &str) {
    let Asked { client, method, path, id, started } = asked;
    let client = client.map(|client| client.to_string()).unwrap_or_default();
    let request_id = id.to_str().unwrap_or_default();
    let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::info!(target: "admin", request_id, client, method, path, status, code, duration_us);
}

fn write(response: &mut Response, problem: &Problem, id: &HeaderValue) {
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
    Refusal(Problem::new(
        Code::Misdirected,
        "Ask for a loopback address or localhost: the admin API answers to no other Host, so that no page of the web \
         can reach it through your browser. To reach it from elsewhere, set gateway.admin_allow_remote = true",
    ))
}
