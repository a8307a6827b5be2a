//! The permit that every request needs before it is forwarded: for a write it holds a place in the audit log.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use sq_shared::route::Route;
use sq_shared::tenant::TenantName;
use tokio::sync::OwnedSemaphorePermit;

use super::ending::{Ending, Written};
use super::line::{Line, full_coordinate, phext_text};
use super::scroll::NamedScroll;
use super::{AuditLog, AuditUnavailable, Queue};

/// A route that may be forwarded: if it writes and the audit log is kept, its line has a place. Nothing but
/// [`AuditLog::admit`] makes it, and the way to the worker takes its route from nowhere else.
pub struct AuditedRoute {
    route: Route,
    draft: Option<Box<Draft>>,
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
    /// `None` when there was none: then the write goes on without, or finds one at its end.
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
    /// Takes a place for the request's line, if the request writes. A read takes nothing and costs nothing.
    ///
    /// # Errors
    /// The config insists on the audit log, and it cannot be written now.
    pub fn admit(
        &self,
        route: Route,
        query: &[u8],
        headers: &HeaderMap,
        author: &Author<'_>,
    ) -> Result<AuditedRoute, AuditUnavailable> {
        let Some(queue) = self.0.as_ref().filter(|_| route.writes()) else {
            return Ok(AuditedRoute { route, draft: None });
        };
        let draft = Draft {
            place: queue.reserve()?,
            queue: Arc::clone(queue),
            tenant: author.tenant.clone(),
            key_id: author.key_id.to_owned(),
            client: author.client,
            request_id: author.request_id.clone(),
            command: route,
            scroll: NamedScroll::new(query, headers),
            is_ended: false,
        };
        Ok(AuditedRoute { route, draft: Some(Box::new(draft)) })
    }
}

impl AuditedRoute {
    /// What the request asks for.
    pub fn route(&self) -> Route {
        self.route
    }

    /// The request's body begins, or begins again.
    pub fn restart_body(&mut self) {
        if let Some(draft) = &mut self.draft {
            draft.scroll.restart();
        }
    }

    /// The next piece of the request's body; `is_last` when the body is whole with it.
    pub fn push_body(&mut self, piece: &[u8], is_last: bool) {
        if let Some(draft) = &mut self.draft {
            draft.scroll.push(piece, is_last);
        }
    }

    /// Gives the line its end, before the client is answered. A second end counts for nothing.
    pub fn end(&mut self, ending: &Ending) -> Written {
        self.draft.take().map_or_else(Written::nothing, |mut draft| draft.end(ending))
    }
}

impl Draft {
    fn end(&mut self, ending: &Ending) -> Written {
        self.is_ended = true;
        let phext = self.scroll.phext();
        let line = Line {
            time: jiff::Timestamp::now(),
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
