//! `GET /admin/openapi.json`: the API's description (OpenAPI 3.1), generated from the handlers.

use std::sync::Arc;

use axum::Extension;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::Serialize;
use sq_shared::headers::PROBLEM_JSON;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, OpenApi, Ref, RefOr, Response};
use utoipa::{OpenApi as _, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::Admin;
use super::tenants::{ADD_PATH, TENANT_PATH};

/// The name of the security scheme.
const ADMIN_KEY: &str = "admin_key";

/// The document as JSON.
#[derive(Clone)]
pub(super) struct Document(Arc<str>);

/// An error (RFC 9457). Some codes have more members: `invalid_parameter` and `missing_parameter` have `field`,
/// `bad_request` has `line` and `column`, `body_too_large` has `limit`, `invalid_files` has `mistakes`.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
struct ProblemBody {
    /// `urn:sq:problem:<code>`.
    #[schema(example = "urn:sq:problem:invalid_parameter")]
    r#type: String,
    /// A short summary.
    #[schema(example = "Invalid parameter")]
    title: String,
    /// The HTTP status.
    #[schema(example = 400)]
    status: u16,
    /// What to do.
    #[schema(example = "Name: a tenant's name is a letter a-z, then at most 62 of a-z, 0-9 and '-'.")]
    detail: String,
    /// The error's code.
    #[schema(example = "invalid_parameter")]
    code: String,
    /// The same as the header `X-Request-Id`.
    #[schema(example = "0192f0c1-2345-7abc-8def-0123456789ab")]
    request_id: String,
    /// The wrong or missing field.
    #[schema(example = "name")]
    field: Option<String>,
    /// The mistakes in the config and the registry.
    mistakes: Option<Vec<MistakeBody>>,
}

/// A mistake in a file.
#[derive(Serialize, ToSchema)]
#[schema(as = Mistake)]
struct MistakeBody {
    /// The file.
    #[schema(example = "/srv/sq/tenants.toml")]
    file: String,
    /// Counted from 1; null if the mistake concerns the whole file.
    #[schema(example = 3)]
    line: Option<usize>,
    /// Counted from 1.
    #[schema(example = 8)]
    column: Option<usize>,
    /// What is wrong, and what is allowed.
    #[schema(example = "port 80 is outside the slots 1341-1840")]
    message: String,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "SQ Gateway admin API",
        description = "Tenants, keys, stats and reload. It listens on a loopback address, and Host must name that.",
        license(name = "MIT", identifier = "MIT")
    ),
    components(schemas(ProblemBody, MistakeBody)),
    tags(
        (name = "tenants", description = "The tenants of the registry."),
        (name = "keys", description = "The tenants' keys."),
        (name = "reload", description = "Reading the files again."),
        (name = "watch", description = "Health and metrics; no key is needed."),
    )
)]
struct BaseDocument;

/// The document without the routes.
pub(super) fn base_document() -> OpenApi {
    let mut document = BaseDocument::openapi();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The admin's key, whose SHA-256 is gateway.admin_key_sha256."))
        .build();
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme(ADMIN_KEY, SecurityScheme::Http(scheme));
    document
}

/// Describes that these routes need the key, and the errors that they share.
pub(super) fn describe_key(mut router: OpenApiRouter<Admin>) -> OpenApiRouter<Admin> {
    for operation in operations(router.get_openapi_mut()) {
        operation.security = Some(vec![SecurityRequirement::new(ADMIN_KEY, Vec::<String>::new())]);
        let takes_body = operation.request_body.is_some();
        let mut add = |status, text| add_response(operation, status, text);
        add(
            "400",
            "`bad_request`, `invalid_utf8`, `invalid_parameter` or `missing_parameter`; `field` names the field.",
        );
        add("401", "`missing_key` or `invalid_key`.");
        add(
            "429",
            "`too_many_failed_keys`: the address has sent too many wrong keys. The right one still works.",
        );
        add("503", "`admin_key_not_set`, `files_unavailable` or `shutting_down`.");
        if takes_body {
            add("408", "`request_timeout`: the body took longer than 10 s.");
            add("413", "`body_too_large`.");
        }
        add("422", "`invalid_files`: the config or the registry has mistakes, and nothing was changed.");
        add("507", "`disk_full`.");
    }
    router
}

/// Describes a status, unless the route does.
fn add_response(operation: &mut Operation, status: &str, text: &str) {
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| Response::new(text).into());
}

/// Copies the description of a tenant's path to that of a tenant called `add`, because a path without parameters takes
/// precedence over one with parameters.
fn describe_tenant_add(document: &mut OpenApi) {
    let mut described = document.paths.paths.get(TENANT_PATH).cloned().unwrap_or_default();
    let own = [&mut described.get, &mut described.patch, &mut described.delete];
    for operation in own.into_iter().filter_map(Option::as_mut) {
        operation.operation_id = operation.operation_id.take().map(|id| format!("{id}_add"));
        operation.summary =
            operation.summary.take().map(|summary| format!("{summary} Here: for the tenant called add."));
        let parameters = operation.parameters.take().unwrap_or_default();
        let others: Vec<_> = parameters.into_iter().filter(|parameter| !is_name(parameter)).collect();
        operation.parameters = Some(others).filter(|others| !others.is_empty());
    }
    if let Some(add) = document.paths.paths.get_mut(ADD_PATH) {
        (add.get, add.patch, add.delete) = (described.get, described.patch, described.delete);
    }
}

fn is_name(parameter: &RefOr<Parameter>) -> bool {
    matches!(parameter, RefOr::T(parameter) if matches!(parameter.parameter_in, ParameterIn::Path))
}

/// Adds what concerns all routes: the error 421, and the schema of errors.
pub(super) fn finish(mut document: OpenApi) -> Document {
    describe_tenant_add(&mut document);
    for operation in operations(&mut document) {
        add_response(operation, "421", "`misdirected`: the Host does not name this machine.");
        for (status, response) in &mut operation.responses.responses {
            if let RefOr::T(response) = response
                && status.as_str() >= "400"
            {
                let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
                response.content.insert(PROBLEM_JSON.to_owned(), problem.into());
            }
        }
    }
    Document(document.to_json().unwrap_or_default().into())
}

fn operations(document: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    document.paths.paths.values_mut().flat_map(|PathItem { get, post, patch, delete, .. }| {
        [get, post, patch, delete].into_iter().filter_map(Option::as_mut)
    })
}

/// This document.
#[utoipa::path(get, path = "/admin/openapi.json", operation_id = "openapi", tag = "watch",
    responses((status = 200, description = "OpenAPI 3.1. It contains no secret, and needs no key.", body = Object)))]
pub(super) async fn show(Extension(Document(text)): Extension<Document>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], text.to_string())
}
