//! At every level of `RUST_LOG`: keys, queries and bodies stay out, and a log beside the config causes no work.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use serde_json::Value;
use sq_shared::route::Route;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::fake_worker::FakeWorker;
use sq_tests::process::{descendants, run};
use sq_tests::root::Root;
use sq_tests::scrape::{reload_by, reloads};
use sq_tests::separate::Gateway;
use sq_tests::setup::{ADMIN_KEY, Setup, key_of};
use sq_tests::target::url;
use sq_tests::{address, binaries, wait};

use super::deployment;

const WRONG_KEY: &str = "a-wrong-secret";
const QUERY: &str = "words-of-the-query";
const BODY: &str = "words-of-the-body";

/// Filters by which an operator may ask for more than the default.
const LEVELS: [&str; 3] = [
    "trace",
    "info,pingora_core=trace,log=trace,hyper=trace,h2=trace,axum=trace,ureq=trace",
    "off,pingora_core::protocols::http::v1::server=trace,pingora_core=error,access=info",
];

fn assert_keeps_secrets(log: &str) {
    for secret in [&key_of("alice"), WRONG_KEY, ADMIN_KEY, QUERY, BODY] {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is in the log: {line:?}");
    }
}

/// Each route by each method with each key, the secrets in query and body.
fn ask_everything(client: &Client) {
    for route in Route::ALL {
        let target = format!("/api/v2/{}?p=text&c=1.1.1/1.1.1/1.1.1&s={QUERY}", route.as_str());
        for method in ["GET", "POST", "HEAD", "DELETE", "OPTIONS"] {
            let body = (method == "POST").then_some(BODY.as_bytes());
            let _ = client.try_request(method, &target, "", body);
        }
        let _ = client.try_request("POST", &target, "Content-Encoding: gzip\r\n", Some(BODY.as_bytes()));
    }
    for target in ["/health", "/ready", "/metrics", "/nothing", "/%ff", "/api/v2/select/"] {
        let _ = client.try_get(&format!("{target}?s={QUERY}"));
    }
}

/// Requests that break off, or that no parser takes.
fn ask_badly(client: &Client, key: &str) {
    let head =
        format!("GET /api/v2/select?p=a&s={QUERY} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n");
    let post = head.replacen("GET", "POST", 1);
    for bytes in [
        head.clone(),
        head.replacen("HTTP/1.1", "HTTP/9", 1) + "\r\n",
        head.clone() + "no colon\r\n\r\n",
        head.clone() + "X-Control: \u{1}\r\n\r\n",
        head.clone() + "X-SQ-API-Key: another\r\n\r\n",
        head.clone() + "Host: b\r\n\r\n",
        post.clone() + &format!("Content-Length: 100\r\n\r\n{BODY}"),
        post.clone() + &format!("Content-Length: 1\r\nContent-Length: 2\r\n\r\n{BODY}"),
        post.clone() + &format!("Transfer-Encoding: chunked\r\n\r\nff\r\n{BODY}"),
        post.clone() + &format!("Transfer-Encoding: chunked\r\n\r\n{BODY}\r\n"),
        post + &format!("Content-Length: 17\r\n\r\n{BODY}{head}\r\n"),
        format!("{key} {QUERY} {BODY}\r\n\r\n"),
    ] {
        let mut connection = client.connect();
        connection.send(bytes.as_bytes());
        connection.finish_sending();
        let _ = connection.try_answer("GET");
    }
}

fn ask_operators_ports(running: &Deployment) {
    let pool = Client::new(address::at(running.address, 1339), Some(ADMIN_KEY));
    for client in [running.admin(), running.admin_with(Some(WRONG_KEY)), pool] {
        for target in [
            "/",
            "/metrics",
            "/ready",
            "/overview",
            "/status",
            "/admin/tenants",
            "/admin/tenants/alice/stats",
        ] {
            let _ = client.try_get(&format!("{target}?s={QUERY}"));
        }
        let body = format!("{{\"name\": \"{BODY}!\", \"{BODY}\": 1}}");
        for target in ["/admin/tenants/add", "/admin/tenants/alice/keys", "/admin/reload"] {
            let _ = client.try_request("POST", &format!("{target}?key={QUERY}"), "", Some(body.as_bytes()));
        }
        ask_badly(&client, ADMIN_KEY);
    }
}

#[test]
fn no_level_logs_a_key_a_query_or_a_body() {
    for (level, format) in LEVELS.into_iter().zip(["text", "json", "text"]) {
        let running = deployment(format, level);
        for key in [Some(key_of("alice")), Some(WRONG_KEY.to_owned()), None] {
            ask_everything(&running.client(key.as_deref()));
            ask_everything(&running.slot(1341, key.as_deref()));
        }
        for address in [running.listen, address::at(running.address, 1341)] {
            ask_badly(&Client::new(address, None), &key_of("alice"));
        }
        ask_operators_ports(&running);
        let last = running.client_of("alice").get("/api/v2/version");
        let id = last.header("x-request-id").unwrap();
        wait::until("the last request's line", || running.log().contains(id));
        let log = running.stop().read("up.log");
        assert_keeps_secrets(&log);
        if level == "trace" {
            assert!(
                log.lines().any(|line| line.contains("request head received")),
                "the level has no effect:\n{log}"
            );
        }
    }
}

#[test]
fn every_line_is_of_our_own_code() {
    let running = deployment("json", "trace");
    ask_everything(&running.client_of("alice"));
    ask_operators_ports(&running);
    let log = running.stop().read("up.log");
    assert!(log.contains("\"DEBUG\""), "{log}");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        let target = line["target"].as_str().unwrap();
        let first = target.split("::").next().unwrap();
        assert!(["access", "admin", "sq_gateway", "sq_worker", "sq_shared"].contains(&first), "{line}");
    }
}

/// A worker that answers with what no parser takes: the error must not quote it.
#[test]
fn an_answer_that_is_none_is_not_quoted() {
    for answer in [
        format!("HTTP/1.1 200 OK\r\n{BODY}\r\n\r\n"),
        format!("{BODY}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{BODY}\r\n"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n{BODY}"),
    ] {
        let root = Arc::new(Root::new(&Setup::default()));
        let worker = FakeWorker::listen(root.address, 1341);
        let gateway = Gateway::begin_with(&root, &[], &[("RUST_LOG", "trace")]);
        gateway.wait_ready();
        thread::scope(|scope| {
            scope.spawn(|| gateway.client_of("alice").try_get(&format!("/api/v2/select?p=a&s={QUERY}")));
            worker.receive(Some(&answer));
        });
        wait::until("the line of the request", || gateway.log().contains("/api/v2/select"));
        assert_keeps_secrets(&gateway.log());
    }
}

#[test]
fn commands_log_no_key() {
    let root = Root::new(&Setup::default());
    let config = root.config();
    let config = config.to_str().unwrap();
    let traced = |command: &mut Command| run(command.env("RUST_LOG", "trace"));
    let gateway = |arguments: &[&str]| traced(&mut root.gateway_command(arguments));
    let added = gateway(&["tenants", "add", "carol", "--config", config]);
    let key = added.stdout.split_whitespace().last().unwrap().to_owned();
    assert!(key.starts_with("pmb-v1-") && !added.stderr.contains(&key), "{added:?}");
    root.write("old.json", r#"{"tenants": {"an-old-secret": {"name": "dora", "data_dir": "data/dora"}}}"#);
    let url = url(root.listen(), &format!("/health?s={QUERY}"));
    for arguments in [
        &["tenants", "list", "--json", "--config", config][..],
        &["tenants", "rotate-key", "carol", "--config", config],
        &["check", "--config", config],
        &["import", "old.json"],
        &["provision", "--slots", "2", "--config", config],
    ] {
        let outcome = gateway(arguments);
        for secret in [&key, "an-old-secret"] {
            assert!(!outcome.stderr.contains(secret), "{arguments:?}: {outcome:?}");
        }
        let printed: Vec<&str> =
            outcome.stdout.split_whitespace().filter(|word| word.starts_with("pmb-v1-")).collect();
        assert!(printed.iter().all(|key| !outcome.stderr.contains(key)), "{arguments:?}: {outcome:?}");
    }
    let asked = traced(Command::new(binaries::worker()).args(["healthcheck", &url]));
    assert_eq!((asked.code(), asked.stderr.lines().count()), (Some(1), 1), "{asked:?}");
    let refused = traced(Command::new(binaries::worker()).args([
        "serve",
        "--data-dir",
        "data",
        "--key",
        "a key of\ttwo",
    ]));
    assert!(refused.code() == Some(2) && !refused.stderr.contains("a key of"), "{refused:?}");
}

/// Writes to other files of a folder cause no work for a process that watches one file in it: neither lines of a log, nor
/// files that come and go, nor what the programs themselves keep there.
#[test]
fn what_happens_beside_the_config_causes_no_work() {
    let running = deployment("json", "trace");
    wait::until("the reload with which a watch begins", || reloads(&running, "accepted") > 0.0);
    let before = (reloads(&running, "accepted"), running.log().len());
    let mut noise = fs::File::options().create(true).append(true).open(running.join("noise.log")).unwrap();
    for number in 0..2000 {
        writeln!(noise, "line {number}").unwrap();
        let (new, old) = (running.join("keys.csv.new"), running.join("keys.csv"));
        fs::write(&new, "tenant,port,key_id,key\n").unwrap();
        fs::rename(new, old).unwrap();
        fs::remove_file(running.join("keys.csv")).unwrap();
    }
    // Those who watch have looked since, and a change of their own files is noticed all the same.
    reload_by(&running, "accepted", || running.write_registry(&running.read("tenants.toml")));
    assert_eq!(reloads(&running, "accepted"), before.0 + 1.0);
    let grown = running.log().len() - before.1;
    assert!(grown < 64 << 10, "the log has grown by {grown} bytes:\n{}", running.log());
    for process in descendants(running.pid()).iter().map(|process| process.pid).chain([running.pid()]) {
        let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
        let targets: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        let watches = |target: &&std::path::PathBuf| target.to_string_lossy().contains("inotify");
        assert!(
            !targets.is_empty() && !targets.iter().any(|target| watches(&target)),
            "{process}: {targets:?}"
        );
    }
}
