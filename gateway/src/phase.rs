//! The phases of a gateway from serving to exit, and what each means for a client's connection.

use std::time::Duration;

/// How long a stopping gateway keeps idle connections. A client may be sending its next request at this moment: it is told that
/// the gateway stops, where closing the connection would reset it. This is far longer than a request's latency and short
/// enough for the operator who waits.
const LAST_REQUEST_TIME: Duration = Duration::from_secs(1);

/// The same after another process has taken over: the next request is served, and its answer tells the client to reconnect.
/// Nothing waits for this process to exit, but it should not stay long.
const HANDED_OVER_IDLE_TIME: Duration = Duration::from_secs(10);

/// The time for handshakes that have begun when new connections are stopped: a round trip, which takes microseconds from nginx
/// on the same host.
const HANDSHAKE_TIME: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// Told to stop: it accepts, and refuses every new request.
    Refusing,
    /// The same, but no client can connect any more: the accept queue is emptied.
    Leaving,
    /// Another process serves. Requests on existing connections are served here.
    HandedOver {
        /// Whether the other process has the same accept queue. If not, it is emptied here.
        has_client_socket: bool,
    },
}

/// Why the gateway shuts down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShutdownKind {
    Stop,
    /// Another process serves, on this process's client socket or on another.
    HandedOver {
        /// Whether the other process has the client socket.
        has_client_socket: bool,
    },
}

impl Phase {
    pub(crate) fn refuses(self) -> bool {
        matches!(self, Self::Refusing | Self::Leaving)
    }

    /// Whether each answer is the last of its connection.
    pub(crate) fn is_ending(self) -> bool {
        self != Self::Serving
    }

    /// Whether no connection is accepted any more, once the queue is empty.
    pub(crate) fn is_closing(self) -> bool {
        matches!(self, Self::Leaving | Self::HandedOver { .. })
    }

    /// Whether another process accepts from the same queue.
    pub(crate) fn leaves_queue(self) -> bool {
        matches!(self, Self::HandedOver { has_client_socket: true })
    }

    /// How long an idle connection is still kept; `None` is `timeouts.idle`. This is up to half the drain, which leaves the other
    /// half for a last request.
    pub(crate) fn idle_time(self, drain: Duration) -> Option<Duration> {
        match self {
            Self::Serving => None,
            Self::Refusing | Self::Leaving => Some(LAST_REQUEST_TIME.min(drain / 2)),
            Self::HandedOver { .. } => Some(HANDED_OVER_IDLE_TIME.min(drain / 2)),
        }
    }
}

/// How long to wait for the handshakes that have begun: up to half of the shortest [`Phase::idle_time`].
pub(crate) fn handshake_time(drain: Duration) -> Duration {
    HANDSHAKE_TIME.min(drain / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_request_has_half_of_any_drain() {
        for drain_ms in [1, 4, 100, 200, 2000, 30_000] {
            let drain = Duration::from_millis(drain_ms);
            for phase in [Phase::Refusing, Phase::HandedOver { has_client_socket: false }] {
                let idle_time = phase.idle_time(drain).unwrap();
                assert!(!idle_time.is_zero() && 2 * idle_time <= drain, "{idle_time:?} of {drain:?}");
                assert!(2 * handshake_time(drain) <= idle_time, "{drain:?}");
            }
        }
        let usual = Duration::from_secs(30);
        assert_eq!(handshake_time(usual), HANDSHAKE_TIME);
        assert_eq!(Phase::Refusing.idle_time(usual), Some(LAST_REQUEST_TIME));
    }
}
