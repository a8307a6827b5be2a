//! Why an exchange failed, told apart by side. The errors of pingora's sessions are converted here, where they are called.

use std::borrow::Cow;
use std::io;

use pingora::ErrorType::{
    ConnectionClosed, InvalidHTTPHeader, ReadError, ReadTimedout, WriteError, WriteTimedout,
};

use super::body::BodyError;

/// Why a request got no complete answer on this connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client caused it, before an answer began.
    Client(ClientError),
    /// The worker caused it, before an answer began.
    Worker(WorkerError),
    /// The answer began and was cut off: by the worker, or else by the client.
    CutOff(Option<WorkerError>),
}

/// What the client did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientError {
    /// It disconnected, or does not read its answer. No answer would reach it.
    Gone,
    /// Its body is refused.
    Body(BodyError),
}

/// What the worker did instead of answering. The texts quote nothing that it sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WorkerError {
    /// Nothing accepts connections at its address. The request was not sent.
    #[error("failed to connect: {0}")]
    NotListening(io::ErrorKind),
    /// Its accept queue is full.
    #[error("timed out while connecting")]
    ConnectTimedOut,
    /// The connection ended before an answer: the worker died, or stopped just as the request came.
    #[error("connection lost{}", reason(*.0))]
    Died(Option<io::ErrorKind>),
    /// It held up the request or its answer for too long, and may still be working on it.
    #[error("timed out while {0}")]
    TimedOut(&'static str),
    /// What it sent is not a valid answer.
    #[error("invalid answer: {0}")]
    Invalid(Cow<'static, str>),
    /// It does not accept a key that the gateway accepted.
    #[error("key refused")]
    KeyRefused,
    /// It wrote nothing, because its data root is missing; but an earlier attempt may have written.
    #[error("data root missing after an earlier attempt")]
    DataRootMissing,
}

fn reason(kind: Option<io::ErrorKind>) -> String {
    kind.map(|kind| format!(": {kind}")).unwrap_or_default()
}

impl Failure {
    /// The same failure, after the answer began.
    pub(super) fn into_cut_off(self) -> Self {
        match self {
            Self::Client(_) => Self::CutOff(None),
            Self::Worker(error) => Self::CutOff(Some(error)),
            Self::CutOff(error) => Self::CutOff(error),
        }
    }

    /// Whether the worker caused it.
    pub(super) fn is_workers(&self) -> bool {
        matches!(self, Self::Worker(_) | Self::CutOff(Some(_)))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        Self::Worker(error)
    }
}

impl ClientError {
    /// The error of a client's session.
    pub(super) fn from_session(error: &pingora::Error) -> Self {
        match error.etype() {
            ReadTimedout => Self::Body(BodyError::TooSlow),
            ReadError | WriteError | WriteTimedout | ConnectionClosed => Self::Gone,
            _ => Self::Body(BodyError::Malformed),
        }
    }
}

impl WorkerError {
    /// The error of a worker's session.
    pub(super) fn from_session(error: &pingora::Error) -> Self {
        match error.etype() {
            ConnectionClosed | ReadError | WriteError => {
                Self::Died(error.root_cause().downcast_ref::<io::Error>().map(io::Error::kind))
            }
            ReadTimedout | WriteTimedout => Self::TimedOut("waiting for the socket"),
            InvalidHTTPHeader => Self::Invalid("its head is malformed".into()),
            _ => Self::Invalid("its framing is malformed".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use pingora::Error;

    use super::*;

    #[test]
    fn a_lost_connection_means_that_the_worker_died_and_the_client_is_gone() {
        for etype in [ConnectionClosed, ReadError, WriteError] {
            let error = Error::new(etype);
            assert_eq!(WorkerError::from_session(&error), WorkerError::Died(None));
            assert_eq!(ClientError::from_session(&error), ClientError::Gone);
        }
        for etype in [ReadTimedout, WriteTimedout] {
            assert!(matches!(WorkerError::from_session(&Error::new(etype)), WorkerError::TimedOut(_)));
        }
        let slow = ClientError::from_session(&Error::new(ReadTimedout));
        assert_eq!(slow, ClientError::Body(BodyError::TooSlow));
        let lost = io::Error::from(io::ErrorKind::ConnectionReset);
        let lost = WorkerError::from_session(&Error::because(ReadError, "reading", lost));
        assert_eq!(lost.to_string(), "connection lost: connection reset");
    }
}
