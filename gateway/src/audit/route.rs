//! The audit line of a request, from its route to its outcome, and the permit that a write needs before it is forwarded.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use sq_shared::clock;
use sq_shared::phext_name::PhextName;
use sq_shared::route::Route;
use sq_shared::tenant::TenantName;
use tokio::sync::OwnedSemaphorePermit;

use super::line::{Line, full_coordinate, json_line};
use super::outcome::{PendingLine, WriteOutcome};
use super::scroll::NamedScroll;
use super::{AuditLog, AuditUnavailable, Queue};

/// A route that may be forwarded: if it writes and the audit log is on, it has a permit for its line. Only
/// [`RouteDraft::reserve`] creates it, and forwarding takes the route from nowhere else.
pub(crate) struct AuditedRoute(RouteDraft);

/// A route that is not admitted yet. If it writes and the audit log is on, its line is written in any case.
pub(crate) struct RouteDraft {
    route: Route,
    /// `None` if there is no line, or once it has its outcome.
    draft: Option<Box<Draft>>,
    pending: PendingLine,
}

/// The origin of a request.
pub(crate) struct Author {
    pub tenant: TenantName,
    pub key_id: String,
    pub client: IpAddr,
    pub request_id: HeaderValue,
}

/// A line without its outcome. If it is dropped, because the client disconnects or the gateway stops, it is written as
/// unanswered: the write may have been applied.
struct Draft {
    queue: Arc<Queue>,
    /// `None` if none was taken or left. Then the line tries to get one with its outcome.
    permit: Option<OwnedSemaphorePermit>,
    author: Author,
    command: Route,
    scroll: NamedScroll,
    is_complete: bool,
}

impl AuditLog {
    /// Starts the request's line, if the request writes. A read costs nothing.
    pub(crate) fn draft(
        &self,
        route: Route,
        query: &[u8],
        headers: &HeaderMap,
        author: impl FnOnce() -> Author,
    ) -> RouteDraft {
        let queue = self.0.as_ref().filter(|_| route.writes());
        let draft = queue.map(|queue| {
            Box::new(Draft {
                queue: Arc::clone(queue),
                permit: None,
                author: author(),
                command: route,
                scroll: NamedScroll::new(query, headers),
                is_complete: false,
            })
        });
        RouteDraft { route, draft, pending: PendingLine::default() }
    }
}

impl RouteDraft {
    /// Takes a permit for the line, if there is a line.
    ///
    /// # Errors
    /// The config requires the audit log, and it cannot be written now. Then the line is not written but counted as missing.
    pub(crate) fn reserve(mut self) -> Result<AuditedRoute, AuditUnavailable> {
        if let Some(draft) = &mut self.draft {
            draft.permit = draft.queue.reserve().inspect_err(|_| draft.is_complete = true)?;
        }
        Ok(AuditedRoute(self))
    }

    /// Completes the line and waits until it is written, before the client is answered. A second call only waits.
    pub(crate) async fn end(&mut self, outcome: &WriteOutcome) {
        if let Some(mut draft) = self.draft.take() {
            self.pending = draft.end(outcome);
        }
        self.pending.wait().await;
    }
}

impl AuditedRoute {
    pub(crate) fn route(&self) -> Route {
        self.0.route
    }

    /// The request's body starts, possibly again.
    pub(crate) fn restart_body(&mut self) {
        if let Some(draft) = &mut self.0.draft {
            draft.scroll.restart();
        }
    }

    /// Reads the next piece of the request's body; `is_last` if the body is complete with it.
    pub(crate) fn push_body(&mut self, piece: &[u8], is_last: bool) {
        if let Some(draft) = &mut self.0.draft {
            draft.scroll.push(piece, is_last);
        }
    }

    pub(crate) fn line(&mut self) -> &mut RouteDraft {
        &mut self.0
    }
}

impl Draft {
    fn end(&mut self, outcome: &WriteOutcome) -> PendingLine {
        self.is_complete = true;
        let Author { tenant, key_id, client, request_id } = &self.author;
        let phext = self.scroll.phext();
        let line = Line {
            time: clock::now(),
            tenant: tenant.as_str(),
            key_id,
            client: *client,
            request_id: request_id.to_str().unwrap_or_default(),
            command: self.command.as_str(),
            phext: phext.as_ref().map(PhextName::as_str),
            coordinate: full_coordinate(tenant, self.scroll.coordinate(tenant)),
            bytes: outcome.bytes,
            status: outcome.status,
            replayed: outcome.is_replay,
        };
        self.queue.push(json_line(&line), self.permit.take())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_complete {
            // No answer waits for it.
            let _ = self.end(&WriteOutcome::refused(0));
        }
    }
}
