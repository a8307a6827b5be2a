//! The checks that need no body, in their order. The first that fails refuses the request.

use http::Method;
use pingora::http::RequestHeader;
use sq_shared::content;
use sq_shared::credential::{self, CredentialError};
use sq_shared::request_id::request_id;
use sq_shared::route::Route;

use super::authenticate::{AuthenticateError, AuthenticatedTenant, authenticate};
use super::body::BodyMeter;
use super::context::Context;
use super::health::Question;
use super::refuse::Refusal;
use super::repeat::{Attempts, WriteKeys};
use super::route::{self, RouteError};
use super::target::{origin_form, split_target};
use super::{client_ip, utf8};
use crate::audit::AuditLog;
use crate::audit::route::{AuditedRoute, Author, RouteDraft};
use crate::limits::{LimitError, Permit};
use crate::metrics::CommandLabel;

/// What happens to a request.
pub(super) enum Admission {
    Forward(Box<Admitted>),
    /// `/health` or `/ready`.
    Health(Question),
    /// An `OPTIONS` request, as browsers send it before others.
    Preflight,
    Refused(Box<Refused>),
}

/// A request that has passed every check, and what it holds while it is forwarded.
pub(super) struct Admitted {
    /// The permit to reach the tenant's worker.
    pub tenant: AuthenticatedTenant,
    /// Its route, and, if it writes, its line in the audit log.
    pub audited: AuditedRoute,
    pub body: BodyMeter,
    /// Its keys, if it writes.
    pub keys: Option<WriteKeys>,
    pub attempts: Attempts,
    /// A worker may have got it, and may have applied it.
    pub is_sent: bool,
    /// Counts it as one of the tenant's requests in flight.
    pub _in_flight: Permit,
}

/// A request that fails a check.
pub(super) struct Refused {
    pub refusal: Refusal,
    /// The tenant, if the key is valid.
    pub tenant: Option<AuthenticatedTenant>,
    /// Its audit line, if it writes. A request over a limit has none, because the log would grow as fast as a client sends;
    /// nor has one without a route, or one for which the audit log has no space.
    pub line: Option<RouteDraft>,
}

impl Admission {
    /// The tenant, if the request has a valid key and is no preflight or health check.
    pub(super) fn tenant(&self) -> Option<&AuthenticatedTenant> {
        match self {
            Self::Forward(admitted) => Some(&admitted.tenant),
            Self::Refused(refused) => refused.tenant.as_ref(),
            Self::Health(_) | Self::Preflight => None,
        }
    }
}

impl Admitted {
    /// Whether a worker may have applied it without answering.
    pub(super) fn may_be_applied(&self) -> bool {
        self.is_sent && self.audited.route().writes()
    }

    /// Prepares for another attempt, which sends the body again.
    pub(super) fn restart_body(&mut self) {
        self.body.restart();
        self.audited.restart_body();
    }
}

pub(super) fn admit(
    audit: &AuditLog,
    is_root_lost: bool,
    request: &RequestHeader,
    ctx: &mut Context<'_>,
) -> Admission {
    let tenant = match find_tenant(request, ctx) {
        Ok(tenant) => tenant,
        Err(admission) => return admission,
    };
    let in_flight = match charge(&tenant, ctx) {
        Ok(in_flight) => in_flight,
        Err(error) => return refused(error, Some(tenant), None),
    };
    let (path, query) = split_target(origin_form(request.raw_path()));
    let Some(route) = std::str::from_utf8(path).ok().and_then(Route::from_path) else {
        let refusal = utf8::check_target(path, query).err().map_or(RouteError::Unknown.into(), Refusal::from);
        return refused(refusal, Some(tenant), None);
    };
    ctx.command = CommandLabel::Route(route);
    let author = || Author {
        tenant: tenant.tenant().name.clone(),
        key_id: tenant.key_id().to_owned(),
        client: ctx.client,
        request_id: ctx.request_id.clone(),
    };
    let line = audit.draft(route, query, &request.headers, author);
    let (keys, body) = match check_route(route, request, &tenant, ctx) {
        Ok(checked) => checked,
        Err(refusal) => return refused(refusal, Some(tenant), Some(line)),
    };
    if is_root_lost {
        return refused(Refusal::DataRootMissing, Some(tenant), Some(line));
    }
    // The last check, so that the other refusals don't depend on whether the audit log can be written.
    let audited = match line.reserve() {
        Ok(audited) => audited,
        Err(error) => return refused(error, Some(tenant), None),
    };
    let attempts = Attempts::default();
    Admission::Forward(Box::new(Admitted {
        tenant,
        audited,
        body,
        keys,
        attempts,
        is_sent: false,
        _in_flight: in_flight,
    }))
}

fn refused(
    refusal: impl Into<Refusal>,
    tenant: Option<AuthenticatedTenant>,
    line: Option<RouteDraft>,
) -> Admission {
    Admission::Refused(Box::new(Refused { refusal: refusal.into(), tenant, line }))
}

impl<E: Into<Refusal>> From<E> for Admission {
    fn from(refusal: E) -> Self {
        refused(refusal, None, None)
    }
}

/// Charges the request to its client's address, and finds its tenant; or what happens to a request that needs none.
fn find_tenant(request: &RequestHeader, ctx: &mut Context<'_>) -> Result<AuthenticatedTenant, Admission> {
    let (path, _) = split_target(origin_form(request.raw_path()));
    ctx.request_id = request_id(&request.headers);
    ctx.client =
        client_ip::client_ip(ctx.peer, &request.headers, &ctx.directory.config.gateway.trusted_proxies);
    let question = Question::from_path(path);
    if question.is_none() {
        ctx.ip_rate = ctx.directory.client_limits.charge_request(ctx.client)?;
    }
    // While shutting down, only /health is answered.
    if ctx.live.phase.borrow().refuses() && question != Some(Question::Health) {
        return Err(Refusal::ShuttingDown.into());
    }
    if request.method == Method::OPTIONS {
        ctx.command = CommandLabel::Preflight;
        return Err(Admission::Preflight);
    }
    if let Some(question) = question {
        ctx.command = question.command();
        return Err(Admission::Health(question.check_method(&request.method)?));
    }
    Ok(check_key(request, ctx)?)
}

/// Looks up the key. A wrong one is charged to the address. A valid one is served even when the address has used up its rate of
/// wrong keys, so that one script does not lock out an office behind the same address.
fn check_key(request: &RequestHeader, ctx: &Context<'_>) -> Result<AuthenticatedTenant, Refusal> {
    let result = credential::read(&request.headers).map_err(Refusal::from);
    let result = result.and_then(|token| authenticate(token, &ctx.directory).map_err(Refusal::from));
    if let Err(
        Refusal::Credential(CredentialError::Malformed) | Refusal::Authenticate(AuthenticateError::Unknown),
    ) = result
    {
        ctx.directory.client_limits.charge_failed_key(ctx.client)?;
    }
    result
}

fn charge(tenant: &AuthenticatedTenant, ctx: &mut Context<'_>) -> Result<Permit, LimitError> {
    let limiter = &tenant.tenant().limiter;
    ctx.tenant_rate = limiter.charge_request()?;
    limiter.acquire_in_flight()
}

fn check_route(
    route: Route,
    request: &RequestHeader,
    tenant: &AuthenticatedTenant,
    ctx: &Context<'_>,
) -> Result<(Option<WriteKeys>, BodyMeter), Refusal> {
    let (path, query) = split_target(origin_form(request.raw_path()));
    utf8::check_target(path, query)?;
    route::check(route, request.method.as_str(), tenant)?;
    content::check(route, &request.method, &request.headers)?;
    let keys = route.writes().then(|| WriteKeys::new(&request.headers)).transpose()?;
    let body = BodyMeter::new(request, ctx.directory.config.limits.body_bytes)?;
    Ok((keys, body))
}
