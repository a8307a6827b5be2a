//! The real nginx in front of a gateway, with the shipped configuration: only addresses and paths differ, and two
//! listeners without TLS are added for tests that send raw bytes.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::client::Client;
use crate::notice::skip;
use crate::process::Outcome;
use crate::{address, binaries, process, wait};

/// The shipped site.
const SHIPPED: &str = "config/nginx/sq.conf";

/// The server name in it and in the certificate.
pub const NAME: &str = "sq.example.org";

/// Its ports on the deployment's address: instead of 80 and 443, and without TLS, for HTTP/1.1 and for HTTP/2 with
/// prior knowledge (RFC 9113, 3.3).
const REDIRECT_PORT: u16 = 8080;
const TLS_PORT: u16 = 8443;
const PLAIN_PORT: u16 = 8081;
const PLAIN_HTTP2_PORT: u16 = 8082;

/// A running nginx. Dropping it stops it.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    folder: PathBuf,
    address: Ipv4Addr,
}

/// Whether nginx and openssl are installed. If not, prints a notice; with `CI=true`, that is a failure.
pub fn works(skipped: &str) -> bool {
    let missing = ["nginx", "openssl"].into_iter().find(|program| binaries::on_path(program).is_none());
    if let Some(program) = missing {
        skip(&format!("{skipped}: {program} is missing; apt-get install {program}"));
    }
    missing.is_none()
}

impl Nginx {
    /// Starts it in front of a gateway, on the same loopback address, with its files in a folder.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(gateway: SocketAddr, address: Ipv4Addr, deployment: &Path) -> Self {
        Self::start_with(gateway, address, deployment, &[])
    }

    /// The same, with some texts of the site replaced.
    ///
    /// # Panics
    /// It does not start, or the site has no such text.
    pub fn start_with(
        gateway: SocketAddr,
        address: Ipv4Addr,
        deployment: &Path,
        changes: &[(&str, &str)],
    ) -> Self {
        let folder = prepare(gateway, address, deployment, changes);
        let log = File::create(folder.join("nginx.log")).expect("a file for its log");
        let mut command = command(&folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut nginx = Self { child, folder, address };
        wait::until("nginx accepts connections", || {
            let ended = nginx.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "nginx ended: {ended:?}\n{}", nginx.read("nginx.log"));
            let ports = [REDIRECT_PORT, TLS_PORT, PLAIN_PORT, PLAIN_HTTP2_PORT];
            ports.iter().all(|port| Client::new(address::at(address, *port), None).try_connect().is_ok())
        });
        nginx
    }

    /// Runs `nginx -t` on the configuration of [`Nginx::start`].
    pub fn check(gateway: SocketAddr, address: Ipv4Addr, deployment: &Path) -> Outcome {
        process::run(command(&prepare(gateway, address, deployment, &[])).arg("-t"))
    }

    /// A client of the listener without TLS.
    pub fn client(&self, key: Option<&str>) -> Client {
        Client::new(address::at(self.address, PLAIN_PORT), key)
    }

    /// A client of the listener that redirects to HTTPS.
    pub fn redirecting(&self) -> Client {
        Client::new(address::at(self.address, REDIRECT_PORT), None)
    }

    /// A client that speaks plain HTTP to the listener for TLS.
    pub fn plain_at_tls(&self) -> Client {
        Client::new(address::at(self.address, TLS_PORT), None)
    }

    /// The address for HTTP/2 without TLS.
    pub fn http2(&self) -> SocketAddr {
        address::at(self.address, PLAIN_HTTP2_PORT)
    }

    /// Sends a request over TLS with curl, as a customer does.
    pub fn curl(&self, arguments: &[&str], target: &str) -> Outcome {
        let mut command = Command::new("curl");
        command.args(self.curl_arguments()).args(arguments).arg(format!("https://{}{target}", Self::host()));
        process::run(&mut command)
    }

    /// curl's options for finding it and trusting its certificate.
    pub fn curl_arguments(&self) -> [String; 5] {
        let certificate = self.folder.join("fullchain.pem").display().to_string();
        let place = format!("{}:{}", Self::host(), self.address);
        ["-sS".to_owned(), "--cacert".to_owned(), certificate, "--resolve".to_owned(), place]
    }

    /// The name and port in its URLs.
    pub fn host() -> String {
        format!("{NAME}:{TLS_PORT}")
    }

    /// One of its logs: `sq.access.log`, `sq.error.log`, or `nginx.log` for its own output.
    pub fn read(&self, log: &str) -> String {
        fs::read(self.folder.join(log))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        process::kill_and_reap(&mut self.child);
    }
}

/// In the foreground and as one process, so none outlives the child.
fn command(folder: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
    command.args(["-e", "stderr", "-g", "daemon off; master_process off;"]);
    command
}

/// Writes the configuration and the certificate.
fn prepare(gateway: SocketAddr, address: Ipv4Addr, deployment: &Path, changes: &[(&str, &str)]) -> PathBuf {
    let folder = deployment.join("nginx");
    fs::create_dir_all(&folder).expect("nginx's folder");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("a file of nginx's");
    let shown = folder.to_str().expect("a path of UTF-8");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {shown}/{kind};\n"))
        .concat();
    write(
        "nginx.conf",
        &format!(
            "pid {shown}/nginx.pid;\nevents {{ worker_connections 1024; }}\nhttp {{\n{temporary}    include {shown}/site.conf;\n}}\n"
        ),
    );
    write("site.conf", &site(gateway, address, shown, changes));
    make_certificate(&folder);
    folder
}

/// The shipped site with other addresses and paths.
fn site(gateway: SocketAddr, address: Ipv4Addr, folder: &str, changes: &[(&str, &str)]) -> String {
    let shipped = fs::read_to_string(binaries::workspace().join(SHIPPED)).expect("what is shipped");
    let tls = format!(
        "listen {address}:{TLS_PORT} ssl http2; listen {address}:{PLAIN_PORT}; listen {address}:{PLAIN_HTTP2_PORT} http2;"
    );
    [
        ("server 127.0.0.1:1337;", format!("server {gateway};")),
        ("listen 80;", format!("listen {address}:{REDIRECT_PORT};")),
        ("listen [::]:80;", String::new()),
        ("listen 443 ssl http2;", tls),
        ("listen [::]:443 ssl http2;", String::new()),
        ("/etc/letsencrypt/live/sq.example.org", folder.to_owned()),
        ("/var/log/nginx", folder.to_owned()),
    ]
    .into_iter()
    .chain(changes.iter().map(|(shipped, other)| (*shipped, (*other).to_owned())))
    .fold(shipped, |text, (shipped, ours)| {
        assert!(text.contains(shipped), "{SHIPPED} has no {shipped:?} any more");
        text.replace(shipped, &ours)
    })
}

/// A self-signed certificate, by the openssl program that every machine with nginx can have, instead of a crate.
fn make_certificate(folder: &Path) {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
    command.args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", &format!("/CN={NAME}")]);
    command.args(["-addext", &format!("subjectAltName=DNS:{NAME}")]);
    command.args(["-keyout", "privkey.pem", "-out", "fullchain.pem"]);
    process::run(&mut command).success();
}
