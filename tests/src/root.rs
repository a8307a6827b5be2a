//! A deployment's folder: config, registry, data and logs. It is kept when the test fails.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::Outcome;
use crate::setup::{Setup, config_text, registry_text};
use crate::{address, binaries, mount, process, tree, wait};

/// A folder and an address that no other deployment has.
#[derive(Debug)]
pub struct Root {
    folder: Option<TempDir>,
    path: PathBuf,
    /// Where everything of it listens.
    pub address: Ipv4Addr,
}

impl Root {
    /// An empty folder.
    ///
    /// # Panics
    /// There is no room for it.
    pub fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("sq-tests-").tempdir().expect("a temporary folder");
        let path = folder.path().canonicalize().expect("its path");
        Self { folder: Some(folder), path, address: address::unused() }
    }

    /// A folder with config and registry.
    pub fn new(setup: &Setup) -> Self {
        let root = Self::empty();
        root.write("gateway.toml", &config_text(setup, root.address));
        root.write_registry(&registry_text(&setup.tenants));
        root
    }

    /// A folder with a config and no registry.
    pub fn without_registry(setup: &Setup) -> Self {
        let root = Self::empty();
        root.write("gateway.toml", &config_text(setup, root.address));
        root
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The config.
    pub fn config(&self) -> PathBuf {
        self.join("gateway.toml")
    }

    /// The registry.
    pub fn registry(&self) -> PathBuf {
        self.join("tenants.toml")
    }

    /// Writes a file in the folder.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.join(name), text).expect("a file in the deployment's folder");
    }

    /// Replaces the registry as an editor does: by renaming another file over it.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write_registry(&self, text: &str) {
        self.write("tenants.toml.new", text);
        fs::rename(self.join("tenants.toml.new"), self.registry()).expect("the registry");
    }

    /// Reads a file in the folder.
    ///
    /// # Panics
    /// It is not there.
    pub fn read(&self, name: impl AsRef<Path>) -> String {
        let path = self.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// What all tenants have stored.
    pub fn stored(&self) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
        tree::stored(&self.path)
    }

    /// `sq-gateway` with these arguments, run in the folder.
    pub fn gateway_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binaries::gateway());
        command.current_dir(&self.path).args(arguments).env_remove("RUST_LOG");
        command
    }

    /// Runs `sq-gateway` to its end.
    pub fn gateway(&self, arguments: &[&str]) -> Outcome {
        process::run(&mut self.gateway_command(arguments))
    }

    /// Runs `sq-gateway` with these arguments and the deployment's config.
    ///
    /// # Panics
    /// The folder's path is not UTF-8.
    pub fn with_config(&self, arguments: &[&str]) -> Outcome {
        let config = self.config();
        let config = config.to_str().expect("a path of UTF-8");
        self.gateway(&[arguments, &["--config", config]].concat())
    }

    /// Where clients come in.
    pub fn listen(&self) -> SocketAddr {
        address::at(self.address, 1337)
    }

    /// Where the operator comes in.
    pub fn admin(&self) -> SocketAddr {
        address::at(self.address, 1338)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else { return };
        if std::thread::panicking() {
            eprintln!("the deployment's folder is kept: {}", folder.keep().display());
            return;
        }
        mount::unmount_below(&self.path);
        // A worker whose pool was killed may still write.
        let removed = wait::within(wait::PATIENCE, || match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => None,
            _ => Some(()),
        });
        assert!(removed.is_some(), "{} cannot be removed", folder.keep().display());
    }
}
