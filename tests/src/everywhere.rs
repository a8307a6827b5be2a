//! The three servers of the client API.

use crate::client::Client;
use crate::deployment::Deployment;
use crate::lone_worker::LoneWorker;
use crate::setup::{Setup, key_of};

/// Checks what must hold for each: the gateway, a worker of the pool without the gateway, and a worker started alone.
///
/// # Panics
/// It does not hold.
pub fn everywhere(check: impl Fn(&Client)) {
    let running = Deployment::start(&Setup::default());
    check(&running.client_of("alice"));
    check(&running.slot(1342, Some(&key_of("bob"))));
    let folder = tempfile::tempdir().expect("a folder");
    check(&LoneWorker::start(folder.path()).client);
}
