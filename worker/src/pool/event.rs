//! The events of the pool's loop: from sockets, workers, files, signals and directory checks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use sq_shared::process::signals::Signal;
use sq_shared::process::upgrade::{OfferError, Successor};
use tokio::sync::oneshot;

use super::desired::Assignment;
use super::directory_check::CheckResult;
use super::process::Exit;
use super::program::Program;
use super::report::Report;

#[derive(Debug)]
pub(crate) enum Event {
    /// A connection waits on the slot of this port, since this time.
    ConnectionWaits(u16, Instant),
    /// The worker on this port applied its first command at this time.
    WorkerServed(u16, Instant),
    /// The worker on this port exited and was reaped.
    WorkerEnded(u16, Exit),
    /// Read config and registry again, and answer with the files to watch from now on.
    ReloadRequested(oneshot::Sender<Vec<PathBuf>>),
    /// A new program for workers passed its check; this is its version.
    NewProgram(Program, String),
    /// A signal came; the end of standard input may count as one.
    Signalled(Signal),
    /// The new pool of an upgrade waits for the sockets, or there is none.
    SuccessorFound(Result<Successor, OfferError>),
    /// The data root went missing, or is back.
    DataRootChanged {
        is_missing: bool,
    },
    DirectoryCheckDue,
    DirectoryChecked(u16, Arc<Assignment>, CheckResult),
    StatusRequested(oneshot::Sender<Report>),
}
