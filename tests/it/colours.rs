//! Colours: on a terminal unless the environment refuses them (<https://no-color.org>), never in a file.

use sq_tests::client::Client;
use sq_tests::root::Root;
use sq_tests::setup::{Setup, key_of};
use sq_tests::terminal::Terminal;
use sq_tests::{binaries, process, wait};

const WHAT: &str = "colours on a terminal";

/// The beginning of an escape sequence for a style.
const ESCAPE: &str = "\u{1b}[";

/// Variables that refuse colours; an empty variable does not.
const REFUSING: [(&str, &str); 4] =
    [("NO_COLOR", "1"), ("NO_COLOR", "false"), ("CLICOLOR", "0"), ("TERM", "dumb")];
const TAKING: [(&str, &str); 3] = [("NO_COLOR", ""), ("CLICOLOR", "1"), ("TERM", "xterm-256color")];

/// The output of a whole system that starts in a terminal, serves a request, and stops; its workers write there too.
fn of_system(variable: (&str, &str)) -> String {
    let root = Root::new(&Setup::default());
    let program = binaries::gateway();
    let line = format!("exec {} up --root {}", program.display(), root.path().display());
    let mut terminal = Terminal::run(root.path(), &line, &[variable, ("RUST_LOG", "debug")]);
    wait::until("a system that is ready", || terminal.shown().contains("ready http://"));
    Client::new(root.listen(), Some(&key_of("alice"))).get("/api/v2/toc?p=notes").ok();
    wait::until("a line of a worker", || terminal.shown().contains("confined: files"));
    let shown = terminal.shown();
    terminal.close();
    shown
}

#[test]
fn system_and_workers_follow_the_environments_colour_settings() {
    if !Terminal::is_there(WHAT) {
        return;
    }
    for variable in REFUSING {
        let shown = of_system(variable);
        assert!(!shown.contains(ESCAPE), "{variable:?}: {shown}");
        let of_worker: Vec<&str> = shown.lines().filter(|line| line.contains("tenant=alice")).collect();
        assert!(!of_worker.is_empty(), "{shown}");
    }
    for variable in TAKING {
        let shown = of_system(variable);
        let plain = |line: &&str| line.contains(" INFO ") && !line.contains(ESCAPE);
        assert!(shown.contains(ESCAPE) && !shown.lines().any(|line| plain(&line)), "{variable:?}: {shown}");
    }
}

#[test]
fn help_errors_and_lone_workers_follow_them_too() {
    if !Terminal::is_there(WHAT) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (gateway, worker) = (binaries::gateway(), binaries::worker());
    let (gateway, worker) = (gateway.display(), worker.display());
    let lines = [
        format!("{gateway} nothing"),
        format!("{gateway} --help"),
        format!("{worker} pool --help"),
        format!("{worker} serve --nothing"),
        // It logs its sandbox before it is ready.
        format!(
            "rm -f out; {worker} serve --no-auth --listen 127.0.0.1:0 --data-dir data > out & \
             until grep -qs ready out; do sleep 0.01; done; kill $!; wait"
        ),
    ];
    for line in &lines {
        let shown = |variable| {
            let mut terminal = Terminal::run(folder.path(), line, &[variable]);
            terminal.ended();
            terminal.shown()
        };
        for variable in REFUSING {
            let shown = shown(variable);
            assert!(!shown.is_empty() && !shown.contains(ESCAPE), "{line} {variable:?}: {shown:?}");
        }
        let shown = shown(TAKING[0]);
        assert!(shown.contains(ESCAPE), "{line}: {shown:?}");
    }
}

#[test]
fn files_get_no_colours() {
    let root = Root::empty();
    for arguments in [&["nothing"][..], &["check", "--root", "nowhere"]] {
        let mut command = root.gateway_command(arguments);
        let outcome = process::run(command.env("CLICOLOR", "1").env("TERM", "xterm"));
        assert!(!outcome.stderr.is_empty() && !outcome.stderr.contains(ESCAPE), "{outcome:?}");
    }
}
