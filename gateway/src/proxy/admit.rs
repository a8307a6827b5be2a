//! Every check that needs no body, in their order; the first that fails ends the request.

use http::Method;
use pingora::http::RequestHeader;
use sq_shared::content;
use sq_shared::credential::{self, CredentialError};
use sq_shared::request_id::request_id;
use sq_shared::route::Route;

use super::authenticate::{AuthenticateError, AuthenticatedTenant, authenticate};
use super::body::BodyMeter;
use super::context::{Admitted, Context, Stage};
use super::limit::{LimitError, Permit};
use super::refuse::Refusal;
use super::repeat::WriteKeys;
use super::route::{self, RouteError};
use super::target::{origin_form, split_target};
use super::{client_ip, health, utf8};
use crate::audit::AuditLog;
use crate::audit::route::{Author, RouteDraft};
use crate::metrics::Command;
use crate::phase::Phase;

/// What becomes of a request that breaks no rule.
pub enum Admission {
    /// It goes to its worker.
    Forward,
    /// `/health` and `/ready`.
    Health(health::Question),
    /// An `OPTIONS` request, which browsers send first.
    Preflight,
}

/// Checks a request.
///
/// # Errors
/// The first rule that it breaks.
pub fn admit(
    audit: &AuditLog,
    (phase, is_root_lost): (Phase, bool),
    request: &RequestHeader,
    ctx: &mut Context,
) -> Result<Admission, Refusal> {
    let (path, query) = split_target(origin_form(request.raw_path()));
    ctx.request_id = request_id(&request.headers);
    let client =
        client_ip::client_ip(ctx.peer, &request.headers, &ctx.directory.config.gateway.trusted_proxies);
    ctx.client = Some(client);

    let question = health::Question::of_path(path);
    if question.is_none() {
        ctx.ip_standing = ctx.directory.client_limits.charge_request(client)?;
    }
    check_phase(phase, question)?;
    if request.method == Method::OPTIONS {
        ctx.command = Command::Preflight;
        return Ok(Admission::Preflight);
    }
    if let Some(question) = question {
        ctx.command = question.command();
        return question.check_method(&request.method).map(Admission::Health);
    }
    let tenant = authenticate_client(request, ctx)?;
    let in_flight = match charge(&tenant, ctx) {
        Ok(in_flight) => in_flight,
        // It has no line in the audit log: that would grow as fast as anybody sends.
        Err(error) => return Err(refuse(ctx, tenant, None, error)),
    };
    let Some(route) = route::find(path) else {
        let refusal = utf8::check_target(path, query).err().map_or(RouteError::Unknown.into(), Refusal::from);
        return Err(refuse(ctx, tenant, None, refusal));
    };
    ctx.command = Command::Route(route);
    let author = Author {
        tenant: &tenant.tenant().name,
        key_id: tenant.key_id(),
        client,
        request_id: &ctx.request_id,
    };
    let draft = audit.draft(route, query, &request.headers, &author);
    let (keys, body) = match check_route(route, request, &tenant, ctx) {
        Ok(checked) => checked,
        Err(refusal) => return Err(refuse(ctx, tenant, Some(draft), refusal)),
    };
    if is_root_lost {
        return Err(refuse(ctx, tenant, Some(draft), Refusal::DataRootMissing));
    }
    // The last check: what is refused above is refused whether the audit log can be written or not.
    let audited = match draft.take_place() {
        Ok(audited) => audited,
        Err(error) => return Err(refuse(ctx, tenant, None, error)),
    };
    let admitted = Admitted {
        tenant,
        audited,
        keys,
        body,
        attempts: 0,
        absence: None,
        is_sent: false,
        has_answer: false,
        in_flight,
    };
    ctx.stage = Stage::Admitted(Box::new(admitted));
    Ok(Admission::Forward)
}

/// A gateway that stops serves nobody; whether the process lives it says to its end.
fn check_phase(phase: Phase, question: Option<health::Question>) -> Result<(), Refusal> {
    let is_served = !phase.refuses() || question == Some(health::Question::Health);
    if is_served { Ok(()) } else { Err(Refusal::ShuttingDown) }
}

/// A wrong key is charged to the address. (A right one is served even when the address has no wrong ones left:
/// an office behind one address is not locked out by one script.)
fn authenticate_client(request: &RequestHeader, ctx: &Context) -> Result<AuthenticatedTenant, Refusal> {
    let result = credential::read(&request.headers).map_err(Refusal::from);
    let result = result.and_then(|token| authenticate(token, &ctx.directory).map_err(Refusal::from));
    let wrong_key = matches!(
        result,
        Err(Refusal::Credential(CredentialError::Malformed)
            | Refusal::Authenticate(AuthenticateError::Unknown))
    );
    if let Some(client) = ctx.client.filter(|_| wrong_key) {
        ctx.directory.client_limits.charge_failed_key(client)?;
    }
    result
}

/// Charges the request to its tenant.
fn charge(tenant: &AuthenticatedTenant, ctx: &mut Context) -> Result<Permit, LimitError> {
    let limiter = &tenant.tenant().limiter;
    ctx.tenant_standing = limiter.charge_request()?;
    limiter.enter()
}

/// What a route asks of a request.
fn check_route(
    route: Route,
    request: &RequestHeader,
    tenant: &AuthenticatedTenant,
    ctx: &Context,
) -> Result<(Option<WriteKeys>, BodyMeter), Refusal> {
    let (path, query) = split_target(origin_form(request.raw_path()));
    utf8::check_target(path, query)?;
    route::check(route, request.method.as_str(), tenant)?;
    content::check(route, &request.method, &request.headers)?;
    let keys = route.writes().then(|| WriteKeys::new(&request.headers)).transpose()?;
    let body = BodyMeter::new(request, ctx.directory.config.limits.body_bytes)?;
    Ok((keys, body))
}

/// Leaves what is known about a refused request for its answer and its lines.
fn refuse(
    ctx: &mut Context,
    tenant: AuthenticatedTenant,
    draft: Option<RouteDraft>,
    refusal: impl Into<Refusal>,
) -> Refusal {
    ctx.stage = Stage::Refused(tenant, draft);
    refusal.into()
}
