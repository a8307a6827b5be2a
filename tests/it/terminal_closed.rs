//! The terminal in which a server was started is closed: the server stops as on Ctrl-C, unless it was started to run
//! on (`nohup`). SIGHUP from an operator always reloads the files.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use sq_tests::client::Client;
use sq_tests::process::{self, Identity};
use sq_tests::root::Root;
use sq_tests::setup::{Setup, key_of};
use sq_tests::terminal::Terminal;
use sq_tests::{binaries, wait};

const WHAT: &str = "a terminal that is closed";
const UPDATE: &str = "/api/v2/update?p=text&c=1.1.1/1.1.1/1.1.1&s=text";

/// A shell command that becomes a server, with its log in `log` and its process id in `pid`.
fn becomes(command: &str) -> String {
    format!("echo $$ >pid; exec {command} 2>>log")
}

fn up(root: &Root) -> String {
    format!("{} up --root {}", binaries::gateway().display(), root.path().display())
}

/// The server whose process id is in the file, when it is ready.
fn server(root: &Root, is_ready: &str) -> Identity {
    wait::until("a server that is ready", || has(root.path(), "log", is_ready));
    Identity::of(root.read("pid").trim().parse().unwrap()).expect("it runs")
}

fn has(folder: &Path, file: &str, words: &str) -> bool {
    std::fs::read_to_string(folder.join(file)).is_ok_and(|text| text.contains(words))
}

fn alice(root: &Root) -> Client {
    Client::new(root.listen(), Some(&key_of("alice")))
}

/// The server and all its children have exited.
fn assert_ends(server: Identity, root: &Root) {
    let family = process::descendants(server.pid);
    wait::until("the end of the server", || !server.is_alive());
    wait::until("the end of its children", || !family.iter().any(|process| process.is_alive()));
    assert!(!root.read("log").contains("panicked"), "{}", root.read("log"));
}

#[test]
fn up_exits_with_its_terminal_and_leaves_no_child() {
    if !Terminal::is_there(WHAT) {
        return;
    }
    let root = Root::new(&Setup::default());
    let terminal = Terminal::run(root.path(), &becomes(&up(&root)), &[]);
    let server = server(&root, "serving");
    alice(&root).get(UPDATE).ok();
    // From an operator, while the terminal exists.
    process::signal(server.pid, Signal::HUP);
    wait::until("the reload", || has(root.path(), "log", "reason=Hangup"));
    alice(&root).get(UPDATE).ok();
    let family = process::descendants(server.pid);
    assert!(family.len() >= 2, "no pool, or no worker: {family:?}");
    terminal.close();
    assert_ends(server, &root);
    assert!(!family.iter().any(|process| process.is_alive()));
    assert!(root.read("log").contains("gateway stopped") && root.read("log").contains("terminal was closed"));
}

/// A shell with jobs forwards the signal; and writes to the closed terminal must not end the server with another code
/// than 0.
#[test]
fn exits_with_success_when_the_shell_forwards_the_signal() {
    if !Terminal::is_there(WHAT) {
        return;
    }
    let root = Root::new(&Setup::default());
    let line = format!(
        "{} & pid=$!; echo $pid >pid; trap 'kill -HUP $pid' HUP; \
         while kill -0 $pid 2>/dev/null; do wait $pid; code=$?; done; echo $code >code",
        up(&root)
    );
    let mut terminal = Terminal::run(root.path(), &line, &[]);
    wait::until("a system that is ready", || terminal.shown().contains("ready http://"));
    let server = Identity::of(root.read("pid").trim().parse().unwrap()).unwrap();
    alice(&root).get(UPDATE).ok();
    let family = process::descendants(server.pid);
    terminal.close();
    wait::until("its exit code", || root.join("code").exists() && !root.read("code").is_empty());
    assert_eq!(root.read("code").trim(), "0");
    assert!(!family.iter().any(|process| process.is_alive()), "{family:?}");
}

#[test]
fn each_server_exits_with_its_terminal() {
    if !Terminal::is_there(WHAT) {
        return;
    }
    let (gateway, worker) = (binaries::gateway(), binaries::worker());
    let (gateway, worker) = (gateway.display(), worker.display());
    for (command, ready) in [
        (format!("{gateway} serve --config gateway.toml"), "serving"),
        (format!("{worker} pool --config gateway.toml"), "pool ready"),
        (format!("{worker} serve --no-auth --listen 127.0.0.1:0 --data-dir data"), "confined"),
    ] {
        let root = Root::new(&Setup::default());
        let terminal = Terminal::run(root.path(), &becomes(&command), &[]);
        let server = server(&root, ready);
        terminal.close();
        assert_ends(server, &root);
        assert!(root.read("log").contains("terminal was closed"), "{command}: {}", root.read("log"));
    }
}

#[test]
fn with_nohup_it_runs_on_and_reloads_its_files() {
    if !Terminal::is_there(WHAT) {
        return;
    }
    let root = Root::new(&Setup::default());
    let line = becomes(&format!("nohup {} >/dev/null", up(&root)));
    let terminal = Terminal::run(root.path(), &line, &[]);
    let server = server(&root, "serving");
    terminal.close();
    // Longer than the check for a closed terminal takes.
    wait::pass(Duration::from_secs(1));
    assert!(server.is_alive(), "{}", root.read("log"));
    alice(&root).get(UPDATE).ok();
    let before = root.read("log").matches("reason=Hangup").count();
    process::signal(server.pid, Signal::HUP);
    wait::until("the reload", || root.read("log").matches("reason=Hangup").count() > before);
    alice(&root).get(UPDATE).ok();
    process::signal(server.pid, Signal::TERM);
    assert_ends(server, &root);
}

/// As `disown` does: the terminal is closed, and the server gets no signal.
#[test]
fn one_that_was_left_running_reloads_at_an_operators_signal() {
    if !Terminal::is_there(WHAT) {
        return;
    }
    let root = Root::new(&Setup::default());
    let line = format!("trap : HUP; {} 2>>log & echo $! >pid; wait; wait", up(&root));
    let terminal = Terminal::run(root.path(), &line, &[("RUST_LOG", "debug")]);
    let server = server(&root, "serving");
    terminal.close();
    wait::until("its knowledge", || has(root.path(), "log", "the terminal is gone"));
    wait::pass(Duration::from_millis(2100));
    process::signal(server.pid, Signal::HUP);
    wait::until("the reload", || has(root.path(), "log", "reason=Hangup"));
    alice(&root).get(UPDATE).ok();
    assert!(server.is_alive());
    process::signal(server.pid, Signal::TERM);
    assert_ends(server, &root);
}
