//! Servers that run alone: the real `sq` 0.6.0, with which our worker is compared, our worker, and
//! our gateway without a pool.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::client::Client;
use crate::notice::skip;
use crate::root::Root;
use crate::{address, binaries, process, wait};

/// Names the peer's program.
const PEER_VARIABLE: &str = "SQ_PEER";

/// How to get it, for the message that says it is missing.
const INSTALL: &str = "cargo install sq --version 0.6.0 --locked --root target/peers";

/// Where the peer is. When it is nowhere, says what is skipped; where `CI=true`, that is a failure.
///
/// # Panics
/// It is missing and `CI=true`.
pub fn sq(skipped: &str) -> Option<PathBuf> {
    let found = sq_if_any();
    if found.is_none() {
        skip(&format!("{skipped}: the peer sq is missing; {INSTALL}"));
    }
    found
}

/// Where the peer is, if it is anywhere.
pub fn sq_if_any() -> Option<PathBuf> {
    let named = std::env::var_os(PEER_VARIABLE).map(PathBuf::from);
    let installed = binaries::workspace().join("target/peers/bin/sq");
    let on_path = binaries::on_path("sq");
    named.into_iter().chain([installed]).chain(on_path).find(|program| program.is_file())
}

/// What a server of the API can always be asked.
const VERSION: &str = "/api/v2/version";

/// A running server beside which, or as which, our worker is tested.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Asks it, with its key.
    pub client: Client,
}

impl Server {
    /// The peer on a directory, with a key.
    pub fn peer(program: &Path, data_dir: &Path, key: &str) -> Self {
        let port = address::free_port();
        let mut command = Command::new(program);
        command.args(["host", &port.to_string(), "--key", key, "--data-dir"]).arg(data_dir);
        // It keeps files of its own in the folder that it is started in.
        command.current_dir(data_dir.parent().unwrap_or(data_dir));
        Self::start(&mut command, Client::new(address::at([127, 0, 0, 1].into(), port), Some(key)), VERSION)
    }

    /// Our worker, alone, on a directory, with a key.
    pub fn worker(data_dir: &Path, key: &str) -> Self {
        let listen = address::at(address::unused(), 1341);
        let mut command = Command::new(binaries::worker());
        command.args(["serve", "--listen", &listen.to_string(), "--key", key, "--data-dir"]).arg(data_dir);
        command.env("RUST_LOG", "info,access=off");
        Self::start(&mut command, Client::new(listen, Some(key)), VERSION)
    }

    /// The gateway alone, without a pool behind it; the client has this key.
    pub fn gateway(root: &Root, key: &str) -> Self {
        let config = root.config();
        let mut command = root.gateway_command(&["serve", "--config"]);
        command.arg(config);
        // What it would forward has nobody to answer it.
        Self::start(&mut command, Client::new(root.listen(), Some(key)), "/health")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn start(command: &mut Command, client: Client, sign_of_life: &str) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut server = Self { child, client };
        wait::until("the server's first answer", || {
            let ended = server.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "{command:?} ended: {ended:?}");
            server.client.try_get(sign_of_life).is_ok()
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        process::kill_and_reap(&mut self.child);
    }
}
