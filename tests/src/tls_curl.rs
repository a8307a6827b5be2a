//! curl as a customer uses it: over TLS, by name, believing one certificate.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process;

/// Longer than curl's own patience, a minute.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Who is asked, and how he is known.
#[derive(Debug, Clone)]
pub struct TlsCurl {
    /// The name in the URL and in the certificate.
    pub name: &'static str,
    /// Where the name is, port 443.
    pub address: String,
    /// The certificate that is believed.
    pub certificate: PathBuf,
}

impl TlsCurl {
    /// Asks. Gives the status, 0 without an answer, and the body.
    pub fn ask(&self, arguments: &[&str], target: &str) -> (u16, String) {
        let outcome = process::run_within(&mut self.command(arguments, target), PATIENCE);
        let (body, status) = outcome.stdout.rsplit_once('\n').unwrap_or_default();
        (status.parse().unwrap_or(0), body.to_owned())
    }

    /// The command of [`Self::ask`]; what it prints ends with a line that has the status, 000 without an answer.
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
