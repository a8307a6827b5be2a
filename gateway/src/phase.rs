//! How far the gateway is on its way from start to end, and what each phase means for a client's connection.

use std::time::Duration;

/// How long a stopping gateway keeps connections without a request. A client that has one may be sending its next
/// request at this very moment: it is told that the gateway stops, where a closed connection would be a reset. Far
/// longer than a request is on its way, and short for whoever waits for the stop.
const LAST_REQUEST_TIME: Duration = Duration::from_secs(1);

/// The same when another process has taken over: the next request is served, and tells its client to connect anew.
/// Nobody waits for the end of this process, but it should not be there for long.
const HANDED_OVER_IDLE_TIME: Duration = Duration::from_secs(10);

/// Where the gateway stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Accepts and serves.
    Serving,
    /// Told to stop: it accepts, and refuses every new request.
    Refusing,
    /// The same, but nobody can connect any more: the queue is emptied.
    Leaving,
    /// Another process serves. What comes on old connections is served.
    HandedOver {
        /// Whether the other process has the same queue. If not, it is emptied here.
        has_client_socket: bool,
    },
}

/// Why the gateway ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to stop.
    Stop,
    /// Another process serves, on this one's client socket or on another.
    HandedOver {
        /// Whether the other process has the client socket.
        has_client_socket: bool,
    },
}

impl Phase {
    /// Whether new requests are refused.
    pub fn refuses(self) -> bool {
        matches!(self, Self::Refusing | Self::Leaving)
    }

    /// Whether each answer is the last one of its connection.
    pub fn is_ending(self) -> bool {
        self != Self::Serving
    }

    /// Whether nothing is accepted any more, once the queue is empty.
    pub fn is_closing(self) -> bool {
        matches!(self, Self::Leaving | Self::HandedOver { .. })
    }

    /// Whether another process accepts from the same queue.
    pub fn leaves_queue(self) -> bool {
        matches!(self, Self::HandedOver { has_client_socket: true })
    }

    /// How long a connection without a request is still kept; `None` for as long as usual. Half the drain at most, so
    /// that a request that comes last has as long again.
    pub fn idle_time(self, drain: Duration) -> Option<Duration> {
        match self {
            Self::Serving => None,
            Self::Refusing | Self::Leaving => Some(LAST_REQUEST_TIME.min(drain / 2)),
            Self::HandedOver { .. } => Some(HANDED_OVER_IDLE_TIME.min(drain / 2)),
        }
    }
}
