//! The commands of our pages are run one after the other: none may ask a server that need not listen yet.

use std::fs;
use std::process::Command;

use sq_tests::binaries::{on_path, workspace};
use sq_tests::client::Client;
use sq_tests::{address, notice, process, wait};

/// What comes back before the server listens: nginx's reload, a container's start, and what the shell leaves running.
const EARLY: [&str; 6] = [
    "reload-or-restart nginx",
    "reload nginx",
    "nginx -s reload",
    "up --detach",
    "docker compose start",
    "docker compose restart",
];

/// What asks a server.
const ASKS: [&str; 3] = ["curl ", "sq \"", "healthcheck"];

/// What tries again while nobody answers.
const PATIENT: [&str; 3] = ["--retry", "until ", "--wait"];

fn pages() -> Vec<(String, String)> {
    [
        "README.md",
        "docs/tutorial.md",
        "docs/operations.md",
        "docs/containers.md",
        "docs/audit.md",
        "compose/single.yaml",
    ]
    .into_iter()
    .map(|page| (page.to_owned(), fs::read_to_string(workspace().join(page)).unwrap()))
    .collect()
}

/// The blocks of shell commands of a page; of a Compose file, its head.
fn blocks<'t>(page: &str, text: &'t str) -> Vec<&'t str> {
    if page.ends_with(".yaml") {
        return text.split("\n\n").take(1).collect();
    }
    text.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect()
}

#[test]
fn no_block_of_commands_is_a_race() {
    let mut count = 0;
    for (page, text) in pages() {
        for block in blocks(&page, &text) {
            let mut early = None;
            for line in block.lines() {
                let is_early =
                    EARLY.iter().any(|words| line.contains(words)) || line.trim_end().ends_with(" &");
                let asks = ASKS.iter().any(|words| line.contains(words));
                let is_patient = PATIENT.iter().any(|words| line.contains(words));
                // A function asks when it is called.
                if asks && !is_patient && !line.contains("() {") {
                    assert_eq!(early, None, "{page}: may be asked before it listens: {line}");
                }
                if is_early {
                    early = Some(line);
                }
                if is_patient {
                    early = None;
                }
                count += 1;
            }
        }
    }
    assert!(count > 100, "the pages have only {count} lines of commands");
}

/// What `systemctl restart nginx` rests on: nginx goes into the background when it listens, and not before.
#[test]
fn nginx_listens_when_its_start_returns() {
    if on_path("nginx").is_none() {
        return notice::skip("the start of nginx: nginx is missing; apt-get install nginx");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for round in 0..5 {
        let at = address::at(address::unused(), 1337);
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};", path(kind)))
            .concat();
        let config = format!(
            "pid {}; error_log {}; events {{}} http {{ access_log off; {paths} server {{ listen {at}; return 200 here; }} }}",
            path("pid"),
            path("errors"),
        );
        fs::write(path("nginx.conf"), config).unwrap();
        process::run(Command::new("nginx").args(["-c", &path("nginx.conf")])).success();
        let answer = Client::new(at, None).get("/");
        assert_eq!(answer.ok(), "here", "round {round}");
        // It notes its number a moment later.
        wait::until("nginx's number", || fs::read(path("pid")).is_ok_and(|pid| pid.ends_with(b"\n")));
        process::run(Command::new("nginx").args(["-c", &path("nginx.conf"), "-s", "quit"])).success();
        wait::until("the end of nginx", || !folder.path().join("pid").exists());
    }
}
