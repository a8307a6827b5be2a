//! What is known about one request, from its head to its access line, and what may change while it is served.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use sq_shared::problem::Code;
use tokio::sync::watch;

use super::worker_wait::WorkerWait;
use crate::directory::{Directory, SharedDirectory};
use crate::limits::RateStatus;
use crate::listen::Peer;
use crate::metrics::CommandLabel;
use crate::phase::Phase;
use crate::traces::Trace;

/// The state of one request.
pub(crate) struct Context<'g> {
    /// The gateway's state that may change meanwhile.
    pub live: &'g LiveState,
    /// When its head was complete.
    pub started: Instant,
    /// The offset of its head's end among the bytes of its connection.
    pub head_end: u64,
    /// The snapshot that it keeps to its end.
    pub directory: Arc<Directory>,
    pub peer: Peer,
    pub client: IpAddr,
    /// The client's own id, or a new one.
    pub request_id: HeaderValue,
    pub trace: Trace,
    /// Its command, once its path was looked up.
    pub command: CommandLabel,
    pub ip_rate: Option<RateStatus>,
    pub tenant_rate: Option<RateStatus>,
    /// The rate of wrong keys of its address, once that is exceeded.
    pub failed_keys_rate: Option<RateStatus>,
    /// The code of the answer, if it is a refusal.
    pub code: Option<Code>,
    pub worker_wait: WorkerWait,
    /// When its answer was written, if the gateway read on after that.
    pub answered: Option<Instant>,
}

/// The gateway's state that may change while a request is served.
pub(crate) struct LiveState {
    pub directory: SharedDirectory,
    pub phase: watch::Receiver<Phase>,
}

impl<'g> Context<'g> {
    /// A request of which only the origin is known.
    pub(crate) fn new(live: &'g LiveState, peer: Peer, head_end: u64) -> Self {
        Self {
            live,
            started: Instant::now(),
            head_end,
            directory: live.directory.load_full(),
            peer,
            client: peer.ip(),
            request_id: HeaderValue::from_static(""),
            trace: Trace::default(),
            command: CommandLabel::Unknown,
            ip_rate: None,
            tenant_rate: None,
            failed_keys_rate: None,
            code: None,
            worker_wait: WorkerWait::default(),
            answered: None,
        }
    }

    pub(crate) fn request_id_text(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}
