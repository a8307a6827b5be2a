//! `sq-worker sandbox`: shows how a worker would be confined on this machine.

use std::os::fd::AsFd;
use std::path::PathBuf;

use sq_shared::config::Enforcement;
use sq_shared::process::failure::Failure;
use sq_shared::process::output::{self, say};

use crate::sandbox::{close_inherited, confine};
use crate::store::DataDirectory;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sq-worker sandbox --data-dir /srv/sq/data")]
pub(crate) struct Options {
    /// A directory to confine to, like a tenant's; nothing in it is changed.
    #[arg(long, value_name = "DIR", default_value = "/")]
    data_dir: PathBuf,
}

/// Confines this process as a worker is, and prints the result.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    output::check_open().map_err(|error| output::failure(&error))?;
    close_inherited(false).map_err(Failure::from_error)?;
    if !options.data_dir.is_dir() {
        return Err(Failure::Failed(format!("{} is not a directory", options.data_dir.display())));
    }
    let directory = DataDirectory::open(&options.data_dir).map_err(Failure::from_error)?;
    let (confinement, ()) =
        confine(directory.as_fd(), Enforcement::Try, || Ok(())).map_err(Failure::from_error)?;
    if !confinement.is_complete() {
        return Err(Failure::Failed(format!("a worker is NOT fully confined here: {confinement}")));
    }
    say(format_args!("a worker is confined: {confinement}"))
}
