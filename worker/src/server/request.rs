//! Answers a request: checks its head, then its key, then reads its body, and only then parses and runs the command.

use std::rc::Rc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use percent_encoding::percent_decode_str;
use sq_shared::content::{self, UnsupportedContent};
use sq_shared::form::is_form;
use sq_shared::host::{self, InvalidHost};
use sq_shared::problem::{Code, Problem};
use sq_shared::request_id::request_id;
use sq_shared::route::Route;
use sq_shared::trace_context::TraceParent;
use tracing::{Level, debug, enabled, event};

use crate::api::ApiCommand;
use crate::api::input::Input;
use crate::api::outcome::CommandError;
use crate::api::params::Params;
use crate::server::activity::Busy;
use crate::server::answer_body::AnswerBody;
use crate::server::client::Client;
use crate::server::respond::{self, Answer};
use crate::server::worker::Worker;
use crate::server::{authenticate, body, commits, conditions};
use crate::store::{Expected, StoreError};

/// The health check, which needs no key.
const HEALTH: &str = "/health";

/// Answers a request, and writes its access line.
pub(super) async fn answer(
    worker: &Rc<Worker>,
    client: &Client,
    request: Request<Incoming>,
    busy: Busy,
) -> Response<AnswerBody> {
    // Don't read the clock when no line is written.
    let started = is_access_logged(worker).then(Instant::now);
    let (head, mut incoming) = request.into_parts();
    let id_field = request_id(&head.headers);
    let request_id = id_field.to_str().unwrap_or_default();
    let command = command_name(&head);
    // Logged before any check, so that every head that arrives has a line.
    debug!(tenant = tenant_name(worker), command, request_id, "request head received");
    let mut answer = match handle(worker, client, &head, &mut incoming, request_id).await {
        Ok(answer) => answer,
        Err(problem) => {
            body::discard(&head.headers, &mut incoming).await;
            Answer::from_problem(&problem, request_id)
        }
    };
    if let Some(started) = started {
        let trace = TraceParent::from_headers(&head.headers);
        log_access(worker, command, &answer, started, request_id, trace);
    }
    if !worker.is_of_pool() {
        answer.add_common_fields(id_field);
    }
    respond::response(answer, busy)
}

/// Whether access lines are enabled. Under the pool they are at debug level, because the gateway writes one per request.
fn is_access_logged(worker: &Worker) -> bool {
    // tracing's macros need a constant level, here and below.
    match worker.is_of_pool() {
        true => enabled!(target: "access", Level::DEBUG),
        false => enabled!(target: "access", Level::INFO),
    }
}

fn log_access(
    worker: &Worker,
    command: &'static str,
    answer: &Answer,
    started: Instant,
    request_id: &str,
    trace: Option<TraceParent>,
) {
    macro_rules! access_line {
        ($level:expr) => {
            event!(
                target: "access",
                $level,
                tenant = tenant_name(worker),
                command,
                status = answer.status,
                bytes = answer.content.bytes(),
                duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
                request_id,
                trace_id = trace.map(|trace| trace.trace_id.to_string()),
                "request"
            )
        };
    }
    if worker.is_of_pool() { access_line!(Level::DEBUG) } else { access_line!(Level::INFO) }
}

async fn handle(
    worker: &Rc<Worker>,
    client: &Client,
    head: &Parts,
    incoming: &mut Incoming,
    request_id: &str,
) -> Result<Answer, Problem> {
    // hyper does not check it.
    host::check(head.version, &head.uri, &head.headers).map_err(InvalidHost::problem)?;
    let Target::Api(route) = target(head)? else { return Ok(Answer::health()) };
    authenticate::check(&worker.access.borrow(), route, &head.headers)?;
    client.note_authenticated();
    if let Some(missing) = worker.missing_data {
        return Err(respond::missing_data(missing));
    }
    content::check(route, &head.method, &head.headers).map_err(UnsupportedContent::problem)?;
    let params = Params::parse(head.uri.query().unwrap_or("")).map_err(|error| {
        Problem::new(Code::InvalidUtf8, "the query is not UTF-8 once it is percent-decoded")
            .with("part", "query")
            .with("offset", error.offset)
    })?;
    let (expected, repeat) = match route.writes() {
        true => (conditions::expected(&head.headers)?, conditions::repeat_key(&head.headers)?),
        false => (None, None),
    };
    let cached = if route.is_conditional_read() { conditions::if_none_match(&head.headers) } else { None };
    let body = body::read(&head.headers, incoming, worker.body_bytes(), &worker.body_budget).await?;
    let is_empty_text = body.is_empty() && declares_empty_text(&head.headers);
    let mut input = Input {
        route,
        is_post: head.method == Method::POST,
        params,
        body,
        is_empty_text,
        tenant: worker.tenant.as_ref(),
        connection_id: client.id,
        expected,
        repeat,
    };
    if is_form(&head.headers) {
        input.take_form()?;
    }
    let command = ApiCommand::parse(input)?;
    let answer = run(worker, &command, cached.as_ref(), request_id).await;
    if answer.as_ref().map_or_else(|problem| problem.code.status() < 500, |_| true) {
        worker.note_served();
    }
    answer
}

/// Runs a command, and waits until everything that its answer depends on is durable.
async fn run(
    worker: &Rc<Worker>,
    command: &ApiCommand,
    cached: Option<&Expected>,
    request_id: &str,
) -> Result<Answer, Problem> {
    let refuse = |failure: CommandError| respond::problem_from(&failure, request_id);
    // Reserves memory before there is an answer, so that an answer that waits takes none.
    let pinned = commits::retry_until_ready(worker, || command.pinned(&mut worker.store.borrow_mut())).await;
    let memory = worker.answer_budget.reserve(&pinned.map_err(refuse)?).await?;
    loop {
        let applied =
            commits::retry_until_ready(worker, || command.apply(&mut worker.store.borrow_mut())).await;
        let failure = match applied {
            Ok(pending) => {
                let (outcome, commit_points) = pending.into_parts();
                commits::wait_durable(worker, &commit_points).await.map_err(|error| refuse(error.into()))?;
                if let Some(checksum) = outcome.cached_checksum(cached) {
                    return Ok(Answer::not_modified(checksum));
                }
                return Answer::from_outcome(worker, outcome, memory).await.map_err(refuse);
            }
            Err(failure) => failure,
        };
        // A refusal may depend on writes that are not durable yet. If the disk refuses those, run the command again.
        let commit_points = failure
            .store_error()
            .map_or_else(Vec::new, |error| worker.store.borrow().refusal_commit_points(error));
        match commits::wait_durable(worker, &commit_points).await {
            Ok(()) => return Err(with_current_tag(worker, command, refuse(failure))),
            Err(StoreError::InDoubt) => return Err(refuse(StoreError::InDoubt.into())),
            Err(_) => {}
        }
    }
}

/// Whether a request without a byte of body means an empty text, as when an editor saves an emptied scroll. A client that
/// forgot the text sends neither a content type nor a length.
fn declares_empty_text(headers: &HeaderMap) -> bool {
    // hyper has parsed the length, so it is all digits.
    let is_zero = |length: &HeaderValue| length.as_bytes().iter().all(|digit| *digit == b'0');
    let has_body = headers.get(header::CONTENT_LENGTH).is_some_and(is_zero)
        || headers.contains_key(header::TRANSFER_ENCODING);
    has_body && headers.contains_key(header::CONTENT_TYPE)
}

/// Adds the scroll's current tag to the problem of a write whose condition failed.
fn with_current_tag(worker: &Worker, command: &ApiCommand, mut problem: Problem) -> Problem {
    if problem.code == Code::PreconditionFailed {
        problem.entity_tag = command.target_checksum(&mut worker.store.borrow_mut()).map(respond::entity_tag);
    }
    problem
}

enum Target {
    Health,
    Api(Route),
}

fn target(head: &Parts) -> Result<Target, Problem> {
    let path = head.uri.path();
    if let Err(error) = percent_decode_str(path).decode_utf8() {
        let detail = "the path is not UTF-8 once it is percent-decoded";
        let problem = Problem::new(Code::InvalidUtf8, detail).with("part", "path");
        return Err(problem.with("offset", error.valid_up_to()));
    }
    let not_allowed =
        |allow| Problem::new(Code::MethodNotAllowed, "use a method that the route takes").allow(allow);
    if path == HEALTH {
        let fits = head.method == Method::GET || head.method == Method::HEAD;
        return if fits { Ok(Target::Health) } else { Err(not_allowed("GET, HEAD")) };
    }
    let route = Route::from_path(path).ok_or_else(|| {
        Problem::new(Code::UnknownRoute, "there is no such path: commands are under /api/v2/")
    })?;
    let methods = route.methods();
    if methods.allow(head.method.as_str()) {
        Ok(Target::Api(route))
    } else {
        Err(not_allowed(methods.allow_header()))
    }
}

/// The tenant in log lines.
fn tenant_name(worker: &Worker) -> &str {
    worker.tenant.as_ref().map_or("-", |tenant| tenant.as_str())
}

/// The command in log lines: always from a fixed list, never the client's text.
fn command_name(head: &Parts) -> &'static str {
    match head.uri.path() {
        HEALTH => "health",
        path => Route::from_path(path).map_or("unknown", Route::as_str),
    }
}
