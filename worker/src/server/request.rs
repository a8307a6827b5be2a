//! A request on its way to a command: its head is checked, then its key, then its body is read, and only
//! then is it parsed and applied.

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

use crate::api::input::Input;
use crate::api::params::Params;
use crate::api::{Command, Failure, Known};
use crate::server::activity::Busy;
use crate::server::answer_body::AnswerBody;
use crate::server::connection::Caller;
use crate::server::respond::{self, Answer};
use crate::server::worker::Worker;
use crate::server::{authenticate, body, commits, conditions};
use crate::store::StoreError;

/// The path of the health check, which needs no key.
const HEALTH: &str = "/health";

/// Answers a request, and writes its access line.
pub(super) async fn answer(
    worker: &Rc<Worker>,
    caller: &Caller,
    request: Request<Incoming>,
    busy: Busy,
) -> Response<AnswerBody> {
    // Without a line there is nothing to measure.
    let started = is_access_logged(worker).then(Instant::now);
    let (head, mut incoming) = request.into_parts();
    let own_request_id = request_id(&head.headers);
    let request_id = own_request_id.to_str().unwrap_or_default();
    let command = command_name(&head);
    // Before anything is known to be right: what came, whether or not an answer goes back.
    debug!(tenant = tenant_name(worker), command, request_id, "a head came");
    let mut answer = match handle(worker, caller, &head, &mut incoming, request_id).await {
        Ok(answer) => answer,
        Err(problem) => {
            body::discard(&head.headers, &mut incoming).await;
            Answer::of_problem(&problem, request_id)
        }
    };
    if let Some(started) = started {
        let trace = TraceParent::of_request(&head.headers);
        log_access(worker, command, &answer, started, request_id, trace);
    }
    if !worker.is_of_pool() {
        answer.add_common_fields(own_request_id);
    }
    respond::response(answer, busy)
}

/// Whether somebody reads access lines. Under the pool the gateway has one of its own for the same request.
fn is_access_logged(worker: &Worker) -> bool {
    // A level is part of what is compiled, here and below, so each has its own line.
    match worker.is_of_pool() {
        true => enabled!(target: "access", Level::DEBUG),
        false => enabled!(target: "access", Level::INFO),
    }
}

/// The access line.
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
                trace_id = trace.map(|trace| trace.trace_id().to_string()),
                "request"
            )
        };
    }
    if worker.is_of_pool() { access_line!(Level::DEBUG) } else { access_line!(Level::INFO) }
}

async fn handle(
    worker: &Rc<Worker>,
    caller: &Caller,
    head: &Parts,
    incoming: &mut Incoming,
    request_id: &str,
) -> Result<Answer, Problem> {
    // hyper does not look.
    host::check(head.version, &head.uri, &head.headers).map_err(InvalidHost::problem)?;
    let Target::Api(route) = target(head)? else { return Ok(Answer::health()) };
    authenticate::check(&worker.access(), route, &head.headers)?;
    caller.note_known();
    if let Some(absence) = worker.absence {
        return Err(respond::missing_data(absence));
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
    let known = if route.is_conditional_read() { conditions::known(&head.headers) } else { None };
    let body = body::read(worker, &head.headers, incoming).await?;
    let is_empty_text = body.is_empty() && says_empty_text(&head.headers);
    let mut input = Input {
        route,
        is_post: head.method == Method::POST,
        params,
        body,
        is_empty_text,
        tenant: worker.tenant.as_ref(),
        connection_id: caller.id,
        expected,
        repeat,
    };
    if is_form(&head.headers) {
        input.take_form()?;
    }
    let command = Command::parse(input)?;
    let answer = run(worker, &command, known.as_ref(), request_id).await;
    if answer.as_ref().map_or_else(|problem| problem.code.status() < 500, |_| true) {
        worker.has_served();
    }
    answer
}

/// Runs a command, and waits until its outcome may be told.
async fn run(
    worker: &Rc<Worker>,
    command: &Command,
    known: Option<&Known>,
    request_id: &str,
) -> Result<Answer, Problem> {
    let refuse = |failure: Failure| respond::problem_of(&failure, request_id);
    // Room is waited for before there is anything to hold: an answer that waits takes no memory.
    let pinned = commits::ask(worker, || command.pinned(&mut worker.store.borrow_mut())).await;
    let room = worker.answer_room.take(&pinned.map_err(refuse)?).await?;
    loop {
        let failure = match commits::ask(worker, || command.apply(&mut worker.store.borrow_mut())).await {
            Ok(pending) => {
                let (outcome, tickets) = pending.into_parts();
                commits::settle(worker, &tickets).await.map_err(|error| refuse(error.into()))?;
                if let Some(checksum) = outcome.unless_known(known) {
                    return Ok(Answer::not_modified(checksum));
                }
                return Answer::of_outcome(worker, outcome, room).await.map_err(refuse);
            }
            Err(failure) => failure,
        };
        // A refusal may rest on writes that are not durable yet. When the disk does not take them, it is asked again.
        let tickets =
            failure.store_error().map_or_else(Vec::new, |error| worker.store.borrow().unsettled(error));
        match commits::settle(worker, &tickets).await {
            Ok(()) => return Err(with_current_tag(worker, command, refuse(failure))),
            Err(StoreError::InDoubt) => return Err(refuse(StoreError::InDoubt.into())),
            Err(_) => {}
        }
    }
}

/// Whether a client that sends no byte means a text of no bytes: an editor pushes an emptied scroll so. Who forgets the text
/// names no type for it, and no body.
fn says_empty_text(headers: &HeaderMap) -> bool {
    // A length is digits alone: hyper has read it.
    let is_zero = |length: &HeaderValue| length.as_bytes().iter().all(|digit| *digit == b'0');
    let has_body = headers.get(header::CONTENT_LENGTH).is_some_and(is_zero)
        || headers.contains_key(header::TRANSFER_ENCODING);
    has_body && headers.contains_key(header::CONTENT_TYPE)
}

/// A write whose condition does not hold is told the scroll's tag now.
fn with_current_tag(worker: &Worker, command: &Command, problem: Problem) -> Problem {
    if problem.code != Code::PreconditionFailed {
        return problem;
    }
    match command.checksum_of_target(&mut worker.store.borrow_mut()) {
        Some(checksum) => problem.entity_tag(respond::entity_tag(checksum)),
        None => problem,
    }
}

/// Where a request goes.
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
    let route = Route::of_path(path).ok_or_else(|| {
        Problem::new(Code::UnknownRoute, "there is no such path: commands are under /api/v2/")
    })?;
    let methods = route.methods();
    if methods.allow(head.method.as_str()) {
        Ok(Target::Api(route))
    } else {
        Err(not_allowed(methods.allow_header()))
    }
}

/// What a line calls the tenant.
fn tenant_name(worker: &Worker) -> &str {
    worker.tenant.as_ref().map_or("-", |tenant| tenant.as_str())
}

/// What the access line calls it: never anything that a client made up.
fn command_name(head: &Parts) -> &'static str {
    match head.uri.path() {
        HEALTH => "health",
        path => Route::of_path(path).map_or("unknown", Route::name),
    }
}
