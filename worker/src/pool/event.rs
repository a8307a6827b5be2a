//! News for the pool's loop: from sockets, workers, files, signals, and from the looks at directories.

use std::sync::Arc;
use std::time::Instant;

use sq_shared::process::signals::Signal;
use sq_shared::process::upgrade::{OfferError, Successor};
use tokio::sync::oneshot;

use super::desired::Assignment;
use super::places::Seen;
use super::process::Exit;
use super::program::Program;
use super::report::Report;

/// News for the loop.
#[derive(Debug)]
pub enum Event {
    /// A connection waits on the slot of this port, since then.
    ConnectionWaits(u16, Instant),
    /// The worker on this port has applied its first command.
    WorkerServed(u16, Instant),
    /// The worker on this port has been reaped.
    WorkerEnded(u16, Exit),
    /// Config or registry have changed, or may have.
    FilesChanged,
    /// Workers are to be another program, of this version.
    NewProgram(Program, String),
    /// A signal came; the end of standard input may count as one.
    Signalled(Signal),
    /// The new pool of an upgrade waits for the sockets, or there is none.
    SuccessorFound(Result<Successor, OfferError>),
    /// The data root is not there, or is back.
    DataRootLost(bool),
    /// It is time to look at the tenants' directories.
    LookDue,
    /// This was seen of the directory of the tenant on this port.
    Looked(u16, Arc<Assignment>, Seen),
    /// Somebody wants to know how things stand.
    StatusAsked(oneshot::Sender<Report>),
}
