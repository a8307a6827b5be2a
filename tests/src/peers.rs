//! Servers that run alone: the real `sq` 0.6.0, with which our worker is compared, our worker, and our gateway
//! without a pool.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::client::Client;
use crate::notice::skip;
use crate::root::Root;
use crate::{address, binaries, process, wait};

/// The variable with the peer's program.
const PEER_VARIABLE: &str = "SQ_PEER";

/// How to get it, for the notice that it is missing.
const INSTALL: &str = "cargo install sq --version 0.6.0 --locked --root target/peers";

/// The peer's program. If it is missing, prints a notice; with `CI=true`, that is a failure.
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

/// The peer's program, if it is found.
pub fn sq_if_any() -> Option<PathBuf> {
    let named = std::env::var_os(PEER_VARIABLE).map(PathBuf::from);
    let installed = binaries::workspace().join("target/peers/bin/sq");
    let on_path = binaries::on_path("sq");
    named.into_iter().chain([installed]).chain(on_path).find(|program| program.is_file())
}

/// A request that every server of the API answers.
const VERSION: &str = "/api/v2/version";

/// A running server: our worker, or one to compare it with.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// A client of it, with its key.
    pub client: Client,
}

impl Server {
    /// The peer on a directory, with a key.
    pub fn peer(program: &Path, data_dir: &Path, key: &str) -> Self {
        let port = address::free_port();
        let mut command = Command::new(program);
        command.args(["host", &port.to_string(), "--key", key, "--data-dir"]).arg(data_dir);
        // It writes files into its working directory.
        command.current_dir(data_dir.parent().unwrap_or(data_dir));
        Self::start(&mut command, Client::new(address::at([127, 0, 0, 1].into(), port), Some(key)), VERSION)
    }

    /// Our worker alone on a directory, with a key.
    pub fn worker(data_dir: &Path, key: &str) -> Self {
        let listen = address::at(address::unused(), 1341);
        let mut command = Command::new(binaries::worker());
        command.args(["serve", "--listen", &listen.to_string(), "--key", key, "--data-dir"]).arg(data_dir);
        command.env("RUST_LOG", "info,access=off");
        Self::start(&mut command, Client::new(listen, Some(key)), VERSION)
    }

    /// The gateway without a pool; the client has this key.
    pub fn gateway(root: &Root, key: &str) -> Self {
        let config = root.config();
        let mut command = root.gateway_command(&["serve", "--config"]);
        command.arg(config);
        // Forwarded requests get no response.
        Self::start(&mut command, Client::new(root.listen(), Some(key)), "/health")
    }

    /// Its process id.
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
