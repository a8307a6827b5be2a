//! Why an exchange failed, told apart by side. The errors of pingora's sessions are converted here, where they are called.

use std::borrow::Cow;
use std::io;

use pingora::ErrorType::{
    ConnectionClosed, InvalidHTTPHeader, ReadError, ReadTimedout, WriteError, WriteTimedout,
};

use super::body::BodyError;

/// Why an exchange ended without a complete answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The client disconnected, or does not read its answer. No answer would reach it.
    #[error("client disconnected")]
    ClientGone,
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The worker failed before an answer began.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The answer began and was cut off: by the worker, or else by the client.
    #[error("answer cut off")]
    CutOff(Option<WorkerError>),
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
    #[error("connection lost: {0}")]
    Died(io::ErrorKind),
    /// It held up the request or its answer for too long, and may still be working on it.
    #[error("timed out while {0}")]
    TimedOut(&'static str),
    #[error("invalid answer: {0}")]
    Invalid(Cow<'static, str>),
    #[error("key refused")]
    KeyRefused,
    /// The gateway failed to build a head: a defect of ours.
    #[error("the gateway failed to build a head: {0}")]
    Internal(String),
    /// Its data root is missing, so it wrote nothing; but an earlier attempt may have written.
    #[error("data root missing after an earlier attempt")]
    DataRootMissing,
}

/// The error of a client's session.
impl From<Box<pingora::Error>> for Failure {
    fn from(error: Box<pingora::Error>) -> Self {
        match error.etype() {
            ReadTimedout => Self::Body(BodyError::TooSlow),
            ReadError | WriteError | WriteTimedout | ConnectionClosed => Self::ClientGone,
            _ => Self::Body(BodyError::Malformed),
        }
    }
}

/// The error of a worker's session.
impl From<Box<pingora::Error>> for WorkerError {
    fn from(error: Box<pingora::Error>) -> Self {
        match error.etype() {
            ConnectionClosed | ReadError | WriteError => {
                let cause = error.root_cause().downcast_ref::<io::Error>();
                Self::Died(cause.map_or(io::ErrorKind::UnexpectedEof, io::Error::kind))
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
    fn a_lost_connection_means_that_the_worker_died_or_the_client_is_gone() {
        for etype in [ConnectionClosed, ReadError, WriteError] {
            assert!(matches!(WorkerError::from(Error::new(etype.clone())), WorkerError::Died(_)));
            assert!(matches!(Failure::from(Error::new(etype)), Failure::ClientGone));
        }
        for etype in [ReadTimedout, WriteTimedout] {
            assert!(matches!(WorkerError::from(Error::new(etype)), WorkerError::TimedOut(_)));
        }
        assert!(matches!(Failure::from(Error::new(ReadTimedout)), Failure::Body(BodyError::TooSlow)));
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let lost = WorkerError::from(Error::because(ReadError, "reading", reset));
        assert_eq!(lost, WorkerError::Died(io::ErrorKind::ConnectionReset));
    }
}
