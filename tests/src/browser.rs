//! Debian's Chromium without a window, and a server for the page that it opens.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::notice::skip;
use crate::target::url;
use crate::{address, binaries, process};

/// How long a browser may take to start, and its page to say what it saw: on a busy machine, long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Serves one page, and takes what it posts to `/seen`.
#[derive(Debug)]
pub struct PageServer {
    /// The page's origin.
    pub origin: String,
    seen: Receiver<Value>,
}

impl PageServer {
    /// Serves a page on a loopback address of its own.
    ///
    /// # Panics
    /// There is no address.
    pub fn start(page: &str) -> Self {
        let listener = TcpListener::bind((address::unused(), 0)).expect("an address for the page");
        let origin = url(listener.local_addr().expect("its address"), "");
        let page: Arc<str> = page.into();
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (page, sender) = (Arc::clone(&page), sender.clone());
                std::thread::spawn(move || serve(stream, &page, &sender));
            }
        });
        Self { origin, seen }
    }

    /// Opens the page in a browser; gives what it saw. `None`, and a line that says so, when there is no browser.
    ///
    /// # Panics
    /// The page does not say what it saw.
    pub fn open(&self, skipped: &str) -> Option<Value> {
        let profile = new_profile();
        let mut command = chromium(profile.path(), skipped)?;
        command.arg(format!("{}/", self.origin));
        let browser = Browser(command.spawn().expect("chromium can be started"));
        let seen = self.seen.recv_timeout(PATIENCE);
        drop(browser);
        Some(seen.expect("the page says what it saw"))
    }
}

/// A folder for what a browser keeps.
pub(crate) fn new_profile() -> TempDir {
    tempfile::Builder::new().prefix("sq-tests-chromium-").tempdir().expect("a folder")
}

/// The command of a browser; `None`, and a line that says so, when there is none.
pub(crate) fn chromium(profile: &Path, skipped: &str) -> Option<Command> {
    let Some(program) = binaries::on_path("chromium") else {
        skip(&format!("{skipped}: chromium is missing; apt-get install chromium"));
        return None;
    };
    let mut command = Command::new(program);
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    command.args(["--no-first-run", "--disable-background-networking"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    // Else it leaves files in the user's own folders, and in the folder for temporary files.
    for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"] {
        command.env(variable, profile);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Some(command)
}

/// A browser; dropping it ends it, and the processes that it started.
#[derive(Debug)]
pub(crate) struct Browser(pub(crate) Child);

impl Drop for Browser {
    fn drop(&mut self) {
        let family = process::descendants(self.0.id());
        process::kill_and_reap(&mut self.0);
        for left in family.into_iter().filter(|process| process.is_alive()) {
            process::signal(left.pid, Signal::KILL);
        }
    }
}

/// One request, and the end of the connection.
fn serve(mut stream: TcpStream, page: &str, seen: &Sender<Value>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut line, mut request_line, mut length) = (String::new(), String::new(), 0);
    while reader.read_line(&mut line).ok()? > 2 {
        if request_line.is_empty() {
            request_line.clone_from(&line);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = if request_line.starts_with("POST /seen ") {
        seen.send(serde_json::from_slice(&body).ok()?).ok()?;
        ""
    } else if request_line.starts_with("GET / ") {
        page
    } else {
        ""
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{answer}", answer.len()).ok()
}
