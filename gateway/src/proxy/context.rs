//! What one request knows about itself, from its first step to its access line.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use sq_shared::problem::Code;

use super::authenticate::AuthenticatedTenant;
use super::body::BodyMeter;
use super::client_ip::Peer;
use super::limit::{Permit, Standing};
use super::refuse::Refusal;
use super::repeat::{self, WriteKeys};
use super::worker_wait::WorkerWait;
use crate::audit::AuditedRoute;
use crate::audit::ending::Ending;
use crate::audit::route::RouteDraft;
use crate::directory::Directory;
use crate::metrics::Command;
use crate::traces::Trace;

/// The state of one request.
pub struct Context {
    /// When its head was complete.
    pub started: Instant,
    /// Where its head ends among the bytes of its connection.
    pub head_end: u64,
    /// The snapshot that it sees to its end.
    pub directory: Arc<Directory>,
    /// The connection's other end.
    pub peer: Peer,
    /// Who asks.
    pub client: Option<IpAddr>,
    /// The client's own id, or a new one.
    pub request_id: HeaderValue,
    /// The trace that it belongs to.
    pub trace: Trace,
    /// What it asks for, once its path was looked at.
    pub command: Command,
    /// How the request stands with the rate of its address.
    pub ip_standing: Option<Standing>,
    /// How the request stands with the rate of its tenant.
    pub tenant_standing: Option<Standing>,
    /// How its address stands with wrong keys, once it has sent too many.
    pub failed_keys_standing: Option<Standing>,
    /// How far it has come.
    pub stage: Stage,
    /// Why it is refused, between the step that refuses and the answer.
    pub refusal: Option<Refusal>,
    /// The code of the answer, when it was a refusal.
    pub code: Option<Code>,
    /// How long its worker was waited for.
    pub worker_wait: WorkerWait,
    /// When its answer was written, if the client was heard further after that.
    pub answered: Option<Instant>,
}

/// How far a request has come.
pub enum Stage {
    /// Nothing is known about it.
    New,
    /// Its key is good, and another check has refused it. There is no draft of a line when it is over a rate, has no
    /// route, or the audit log has no place.
    Refused(AuthenticatedTenant, Option<RouteDraft>),
    /// It may be forwarded.
    Admitted(Box<Admitted>),
}

/// A request that has passed every check, and what it holds while it is forwarded.
pub struct Admitted {
    /// The permit to reach the tenant's worker.
    pub tenant: AuthenticatedTenant,
    /// What it asks for, and, if it writes, its place in the audit log.
    pub audited: AuditedRoute,
    /// Watches the body go by.
    pub body: BodyMeter,
    /// Its names, if it writes.
    pub keys: Option<WriteKeys>,
    /// How often a worker was given the request, or is about to be.
    pub attempts: u32,
    /// Since when nobody listens on the slot, or its worker does not know the key, if it was found so.
    pub absence: Option<Instant>,
    /// A worker may have got it, and may have applied it.
    pub is_sent: bool,
    /// The head of an answer came. The answer may wait for its line, and its worker may die meanwhile.
    pub has_answer: bool,
    /// Its place among the tenant's requests in flight.
    pub in_flight: Permit,
}

impl Admitted {
    /// Whether it was sent before.
    pub fn is_repeat(&self) -> bool {
        self.attempts > 1
    }

    /// Whether it goes on waiting for a worker that is not there, or not told of the key: it has not been served, so this
    /// is no attempt.
    pub fn waits_longer(&mut self) -> bool {
        let waits = self.absence.get_or_insert_with(Instant::now).elapsed() < repeat::ABSENCE_TIME;
        self.attempts -= u32::from(waits && self.attempts > 0);
        waits
    }

    /// Whether a worker may have applied it without saying so.
    pub fn may_be_applied(&self) -> bool {
        self.is_sent && self.audited.route().writes()
    }
}

impl Context {
    /// A request of which nothing is known yet but where it comes from.
    pub fn new(directory: Arc<Directory>, peer: Peer) -> Self {
        Self {
            started: Instant::now(),
            head_end: 0,
            directory,
            peer,
            client: None,
            request_id: HeaderValue::from_static(""),
            trace: Trace::default(),
            command: Command::Unknown,
            ip_standing: None,
            tenant_standing: None,
            failed_keys_standing: None,
            stage: Stage::New,
            refusal: None,
            code: None,
            worker_wait: WorkerWait::default(),
            answered: None,
        }
    }

    /// What the request holds when it has passed every check.
    pub fn admitted(&mut self) -> Option<&mut Admitted> {
        match &mut self.stage {
            Stage::New | Stage::Refused(..) => None,
            Stage::Admitted(admitted) => Some(admitted),
        }
    }

    /// The names of a write that has passed every check.
    pub fn keys(&self) -> Option<&WriteKeys> {
        match &self.stage {
            Stage::New | Stage::Refused(..) => None,
            Stage::Admitted(admitted) => admitted.keys.as_ref(),
        }
    }

    /// Whose request it is, once its key has been checked.
    pub fn tenant(&self) -> Option<&AuthenticatedTenant> {
        match &self.stage {
            Stage::New => None,
            Stage::Refused(tenant, _) => Some(tenant),
            Stage::Admitted(admitted) => Some(&admitted.tenant),
        }
    }

    /// Gives the request's audit line its end, if it has one, and waits for it, before the client is answered.
    pub async fn end_audit_line(&mut self, ending: &Ending) {
        match &mut self.stage {
            Stage::New | Stage::Refused(_, None) => {}
            Stage::Refused(_, Some(draft)) => draft.end(ending).await,
            Stage::Admitted(admitted) => admitted.audited.end(ending).await,
        }
    }

    /// The request's id as text.
    pub fn request_id_text(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}
