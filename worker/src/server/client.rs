//! The client of a connection. An accepted client expects to be served, so until its first request the worker is not idle,
//! and a stop waits for it for a while.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use sq_shared::connections::{Place, Stage};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::server::activity::Busy;

/// How long a stopping worker waits for the first head of a connection. The gateway sends it as soon as it connects.
const FIRST_HEAD_AT_STOP: Duration = Duration::from_secs(2);

/// A second wait, for a head that arrived while the thread was busy.
const LATE_HEAD_AT_STOP: Duration = Duration::from_millis(100);

pub(super) struct Client {
    /// The number of the connection.
    pub(super) id: u64,
    place: Option<Place>,
    is_authenticated: Cell<bool>,
    until_first_request: RefCell<Option<Busy>>,
    first_request: Notify,
}

impl Client {
    /// `busy` is held until the first request.
    pub(super) fn new(id: u64, place: Option<Place>, busy: Busy) -> Self {
        Self {
            id,
            place,
            is_authenticated: Cell::new(false),
            until_first_request: RefCell::new(Some(busy)),
            first_request: Notify::new(),
        }
    }

    /// It has sent a valid key, and keeps its place from now on.
    pub(super) fn note_authenticated(&self) {
        if !self.is_authenticated.replace(true)
            && let Some(place) = &self.place
        {
            place.enter(Stage::InService);
        }
    }

    pub(super) fn note_request(&self) {
        if self.until_first_request.borrow_mut().take().is_some() {
            self.first_request.notify_one();
        }
    }

    /// Whether it has yet to send a whole head.
    pub(super) fn awaits_first_request(&self) -> bool {
        self.until_first_request.borrow().is_some()
    }

    /// Waits until the worker stops, and then until the first request has arrived or has timed out.
    pub(super) async fn may_stop(&self, stopping: &mut watch::Receiver<bool>) {
        // The sender is dropped only after it has sent `true`.
        let _ = stopping.wait_for(|stopping| *stopping).await;
        for patience in [FIRST_HEAD_AT_STOP, LATE_HEAD_AT_STOP] {
            if self.awaits_first_request() {
                let _ = timeout(patience, self.first_request.notified()).await;
            }
        }
    }
}
