//! curl as a customer uses it: over TLS, by name, trusting one certificate.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process;

/// Longer than curl's own timeout of a minute.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The server, and how to verify it.
#[derive(Debug, Clone)]
pub struct TlsCurl {
    /// The name in the URL and in the certificate.
    pub name: &'static str,
    /// The name's address, port 443.
    pub address: String,
    /// The trusted certificate.
    pub certificate: PathBuf,
}

impl TlsCurl {
    /// Sends a request. Returns the status, 0 without a response, and the body.
    pub fn ask(&self, arguments: &[&str], target: &str) -> (u16, String) {
        let outcome = process::run_within(&mut self.command(arguments, target), PATIENCE);
        let (body, status) = outcome.stdout.rsplit_once('\n').unwrap_or_default();
        (status.parse().unwrap_or(0), body.to_owned())
    }

    /// The command of [`Self::ask`]; the last line of its output is the status, 000 without a response.
    pub fn command(&self, arguments: &[&str], target: &str) -> Command {
        let Self { name, address, certificate } = self;
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "60", "-w", "\n%{http_code}", "--cacert"]).arg(certificate);
        command.args(["--resolve", &format!("{name}:443:{address}")]);
        command.args(arguments).arg(format!("https://{name}{target}"));
        command.stdin(Stdio::null());
        command
    }
}
