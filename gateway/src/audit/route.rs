//! A request's line, from its route to its end, and the permit that the request needs before it is forwarded: for a
//! write it holds a place in the audit log.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use sq_shared::clock;
use sq_shared::route::Route;
use sq_shared::tenant::TenantName;
use tokio::sync::OwnedSemaphorePermit;

use super::ending::{Ending, Written};
use super::line::{Line, full_coordinate, phext_text};
use super::scroll::NamedScroll;
use super::{AuditLog, AuditUnavailable, Queue};

/// A route that may be forwarded: if it writes and the audit log is kept, its line has a place. Nothing but
/// [`RouteDraft::take_place`] makes it, and the way to the worker takes its route from nowhere else.
pub struct AuditedRoute(RouteDraft);

/// A route that is not yet let in. If it writes and the audit log is kept, it has a line, whatever becomes of it.
pub struct RouteDraft {
    route: Route,
    /// `None` once it has its end.
    draft: Option<Box<Draft>>,
    written: Written,
}

/// Who asks.
pub struct Author<'a> {
    /// Whose key it is.
    pub tenant: &'a TenantName,
    /// Which of the tenant's keys.
    pub key_id: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The request's id.
    pub request_id: &'a HeaderValue,
}

/// A line without its end. One that is dropped without, because the client or the gateway goes, is written
/// all the same: what it asked for may have been done.
struct Draft {
    queue: Arc<Queue>,
    /// `None` when none was taken, or there was none: then the line looks for one at its end.
    place: Option<OwnedSemaphorePermit>,
    tenant: TenantName,
    key_id: String,
    client: IpAddr,
    request_id: HeaderValue,
    command: Route,
    scroll: NamedScroll,
    is_ended: bool,
}

impl AuditLog {
    /// Begins the request's line, if the request writes. A read costs nothing.
    pub fn draft(&self, route: Route, query: &[u8], headers: &HeaderMap, author: &Author<'_>) -> RouteDraft {
        let queue = self.0.as_ref().filter(|_| route.writes());
        let draft = queue.map(|queue| {
            Box::new(Draft {
                queue: Arc::clone(queue),
                place: None,
                tenant: author.tenant.clone(),
                key_id: author.key_id.to_owned(),
                client: author.client,
                request_id: author.request_id.clone(),
                command: route,
                scroll: NamedScroll::new(query, headers),
                is_ended: false,
            })
        });
        RouteDraft { route, draft, written: Written::nothing() }
    }
}

impl RouteDraft {
    /// Takes a place for the line, if there is one.
    ///
    /// # Errors
    /// The config insists on the audit log, and it cannot be written now. Then the request has no line, and is
    /// counted.
    pub fn take_place(mut self) -> Result<AuditedRoute, AuditUnavailable> {
        if let Some(draft) = &mut self.draft {
            draft.place = draft.queue.reserve().inspect_err(|_| draft.is_ended = true)?;
        }
        Ok(AuditedRoute(self))
    }

    /// Gives the line its end, and waits for it, before the client is answered. A second end only waits.
    pub async fn end(&mut self, ending: &Ending) {
        if let Some(mut draft) = self.draft.take() {
            self.written = draft.end(ending);
        }
        self.written.wait().await;
    }
}

impl AuditedRoute {
    /// What the request asks for.
    pub fn route(&self) -> Route {
        self.0.route
    }

    /// The request's body begins, or begins again.
    pub fn restart_body(&mut self) {
        if let Some(draft) = &mut self.0.draft {
            draft.scroll.restart();
        }
    }

    /// The next piece of the request's body; `is_last` when the body is whole with it.
    pub fn push_body(&mut self, piece: &[u8], is_last: bool) {
        if let Some(draft) = &mut self.0.draft {
            draft.scroll.push(piece, is_last);
        }
    }

    /// As [`RouteDraft::end`].
    pub async fn end(&mut self, ending: &Ending) {
        self.0.end(ending).await;
    }
}

impl Draft {
    fn end(&mut self, ending: &Ending) -> Written {
        self.is_ended = true;
        let phext = self.scroll.phext();
        let line = Line {
            time: clock::now(),
            tenant: &self.tenant,
            key_id: &self.key_id,
            client: self.client,
            request_id: self.request_id.to_str().unwrap_or_default(),
            command: self.command.name(),
            phext: phext_text(phext.as_ref()),
            coordinate: full_coordinate(&self.tenant, self.scroll.coordinate(&self.tenant)),
            bytes: ending.bytes,
            status: ending.status,
            replayed: ending.is_replay,
        };
        self.queue.push(line.to_bytes(), self.place.take())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_ended {
            // There is no answer that could wait for it.
            let _ = self.end(&Ending::UNANSWERED);
        }
    }
}
