//! How far the gateway is on its way from start to end, and what each phase means for a client's connection.

use std::fmt;
use std::time::Duration;

/// How long a stopping gateway keeps connections without a request. A client that has one may be sending its next
/// request at this very moment: it is told that the gateway stops, where a closed connection would be a reset. Far
/// longer than a request is on its way, and short for whoever waits for the stop.
const LAST_REQUEST_TIME: Duration = Duration::from_secs(1);

/// The same when another process has taken over: the next request is served, and tells its client to connect anew.
/// Nobody waits for the end of this process, but it should not be there for long.
const HANDED_OVER_IDLE_TIME: Duration = Duration::from_secs(10);

/// How long a client that has begun to connect has for the rest of the handshake, once nobody may begin any more: a round
/// trip, which is some microseconds from nginx on the same host.
const HANDSHAKE_TIME: Duration = Duration::from_millis(50);

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

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::HandedOver { .. } => "handed over",
        })
    }
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

/// How long to wait for the handshakes that have begun. Half of the shortest [`Phase::idle_time`] at most.
pub fn handshake_time(drain: Duration) -> Duration {
    HANDSHAKE_TIME.min(drain / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_short_the_drain_a_last_request_has_half_of_it() {
        for drain_ms in [1, 4, 100, 200, 2000, 30_000] {
            let drain = Duration::from_millis(drain_ms);
            for phase in [Phase::Refusing, Phase::HandedOver { has_client_socket: false }] {
                let last_call = phase.idle_time(drain).unwrap();
                assert!(!last_call.is_zero() && 2 * last_call <= drain, "{last_call:?} of {drain:?}");
                assert!(2 * handshake_time(drain) <= last_call, "{drain:?}");
            }
        }
        let usual = Duration::from_secs(30);
        assert_eq!(handshake_time(usual), HANDSHAKE_TIME);
        assert_eq!(Phase::Refusing.idle_time(usual), Some(LAST_REQUEST_TIME));
    }
}
