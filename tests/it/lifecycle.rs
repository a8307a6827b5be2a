//! The life of a running system: idle workers stop and wake, changes of the registry are applied, and a stop loses
//! nothing.

use std::time::Duration;

use rustix::process::Signal;
use sq_tests::deployment::Deployment;
use sq_tests::setup::{Setup, Tenant, config_text, key_of, registry_text};
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::{process, wait};

fn status_of(running: &Deployment, key: &str) -> u16 {
    running.client(Some(key)).get(SELECT).status
}

#[test]
fn health_and_readiness_need_no_key() {
    let running = Deployment::start(&Setup::default());
    let client = running.client(None);
    let health = client.get("/health");
    assert_eq!((health.status, health.header("content-type")), (200, Some("application/json")), "{health}");
    assert_eq!(health.json(), serde_json::json!({"status": "ok", "tenants": 2}));
    assert_eq!(client.get("/ready").status, 200);
    for path in ["/health", "/ready"] {
        let head = client.request("HEAD", path, "", None);
        assert_eq!((head.status, head.body.len()), (200, 0), "{head}");
    }
}

#[test]
fn idle_worker_stops_and_wakes_again() {
    let running =
        Deployment::start(&Setup { pool: "idle_timeout = \"300ms\"".to_owned(), ..Setup::default() });
    let client = running.client_of("alice");
    assert!(running.workers().is_empty(), "a worker runs before the first request");
    for round in 0..3 {
        client.post(UPDATE, format!("round {round}")).ok();
        wait::until("the end of the idle worker", || running.worker_of("alice").is_none());
        assert_eq!(client.get(SELECT).ok(), format!("round {round}"));
    }
}

#[test]
fn requests_around_the_idle_stop_are_all_served() {
    let running =
        Deployment::start(&Setup { pool: "idle_timeout = \"20ms\"".to_owned(), ..Setup::default() });
    let client = running.client_of("alice");
    client.post(UPDATE, "kept").ok();
    for pause in 0..60 {
        assert_eq!(client.get(SELECT).ok(), "kept", "after {pause} ms");
        wait::pass(Duration::from_millis(pause));
    }
}

#[test]
fn registry_change_is_applied() {
    let running = Deployment::start(&Setup::default());
    running.client_of("alice").post(UPDATE, "kept").ok();
    let mut changed =
        vec![Tenant::new("alice", 1341).with_key("second-key", "write", None), Tenant::new("carol", 1343)];
    running.write_registry(&registry_text(&changed));
    wait::until("the new key", || status_of(&running, "second-key") == 200);
    wait::until("the new tenant", || status_of(&running, &key_of("carol")) == 200);
    running.client_of("bob").get(SELECT).problem(401, "invalid_key");
    assert_eq!(running.client(Some("second-key")).get(SELECT).ok(), "kept");

    changed[0].keys.remove(0);
    running.write_registry(&registry_text(&changed));
    wait::until("the end of the first key", || status_of(&running, &key_of("alice")) == 401);
    assert_eq!(running.client(Some("second-key")).get(SELECT).ok(), "kept");

    changed[0].state = "suspended";
    running.write_registry(&registry_text(&changed));
    wait::until("the suspension", || status_of(&running, "second-key") == 403);
    wait::until("the end of the worker", || running.worker_of("alice").is_none());
    changed[0].state = "active";
    running.write_registry(&registry_text(&changed));
    wait::until("the return", || status_of(&running, "second-key") == 200);
    assert_eq!(running.client(Some("second-key")).get(SELECT).ok(), "kept");
}

#[test]
fn sighup_reloads_the_config() {
    let setup = Setup { limits: "body = \"1KiB\"".to_owned(), ..Setup::default() };
    let running = Deployment::start(&setup);
    let client = running.client_of("alice");
    client.post(UPDATE, vec![b'x'; 2000]).problem(413, "body_too_large");
    let setup = Setup { limits: "body = \"4KiB\"".to_owned(), ..setup };
    running.write("gateway.toml", &config_text(&setup, running.address));
    running.signal(Signal::HUP);
    wait::until("the new limit", || client.post(UPDATE, vec![b'x'; 2000]).status == 200);
    client.post(UPDATE, vec![b'x'; 5000]).problem(413, "body_too_large");
}

#[test]
fn broken_registry_keeps_the_previous_one() {
    let running = Deployment::start(&Setup::default());
    let twice = [Tenant::new("alice", 1341), Tenant::new("mallory", 1341)];
    for broken in ["[[tenant]\n", "[[tenant]]\nname = \"Alice\"\nport = 1341\n", &registry_text(&twice)] {
        let logged = running.log().len();
        running.write_registry(broken);
        running.signal(Signal::HUP);
        wait::until("a line about the mistake", || {
            running.log().get(logged..).is_some_and(|log| log.contains("tenants.toml"))
        });
        running.client_of("alice").get(SELECT).ok();
        running.client_of("bob").get(SELECT).ok();
        running.client_of("mallory").get(SELECT).problem(401, "invalid_key");
    }
    running.write_registry(&registry_text(&[Tenant::new("alice", 1341), Tenant::new("mallory", 1343)]));
    wait::until("the mended registry", || status_of(&running, &key_of("mallory")) == 200);
}

#[test]
fn requests_in_flight_at_a_stop_are_finished() {
    let mut running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    let mut upload = client.connect();
    let head = client.head("POST", UPDATE) + "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    upload.send(head.as_bytes());
    assert_eq!(upload.answer().status, 100);
    let family = process::descendants(running.pid());
    running.signal(Signal::TERM);
    wait::until("the end of accepting", || {
        client.try_get("/health").map_or(true, |answer| answer.status == 503)
    });
    upload.send(b"last");
    assert_eq!(upload.answer().ok(), "Updated 4 bytes");
    let status = running.ended();
    assert_eq!(status.code(), Some(0), "{status}\n{}", running.log());
    assert!(family.into_iter().all(|process| !process.is_alive()), "a process is left");
    assert_eq!(running.read("data/alice/text.phext"), "last");
}

#[test]
fn request_completed_after_a_stop_is_refused() {
    let mut running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    let mut connection = client.connect();
    let head = client.head("GET", SELECT) + "\r\n";
    connection.send(head.as_bytes());
    connection.answer().ok();
    let (first, rest) = head.split_at(10);
    connection.send(first.as_bytes());
    let mut upload = client.connect();
    let expecting = client.head("POST", UPDATE) + "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    upload.send(expecting.as_bytes());
    assert_eq!(upload.answer().status, 100);
    running.signal(Signal::TERM);
    wait::until("the end of accepting", || client.try_get("/health").is_err());
    connection.send(rest.as_bytes());
    let refused = connection.answer();
    refused.problem(503, "shutting_down");
    assert!(refused.header("retry-after").is_some(), "{refused}");
    upload.send(b"last");
    assert_eq!(upload.answer().ok(), "Updated 4 bytes");
    assert_eq!(running.ended().code(), Some(0));
}

#[test]
fn sigint_stops_it_too() {
    let mut running = Deployment::start(&Setup::default());
    running.client_of("alice").get(SELECT).ok();
    running.signal(Signal::INT);
    assert_eq!(running.ended().code(), Some(0));
}

#[test]
fn stored_data_survives_a_restart() {
    let running = Deployment::start(&Setup::default());
    running.client_of("alice").post(UPDATE, "kept").ok();
    let again = Deployment::up(running.stop(), &[]);
    assert_eq!(again.client_of("alice").get(SELECT).ok(), "kept");
    again.stop();
}

#[test]
fn file_changed_by_another_program_is_read_again() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    client.post(UPDATE, "ours").ok();
    running.write("data/alice/theirs.tmp", "theirs");
    std::fs::rename(running.join("data/alice/theirs.tmp"), running.join("data/alice/text.phext")).unwrap();
    assert_eq!(client.get("/api/v2/load?p=text").ok(), "Loaded text.phext");
    assert_eq!(client.get(SELECT).ok(), "theirs");
}

#[test]
fn port_in_use_is_named_and_nothing_starts() {
    let root = sq_tests::root::Root::new(&Setup::default());
    let _taken = std::net::TcpListener::bind((root.address, 1342)).unwrap();
    let folder = root.path().to_str().unwrap();
    let outcome = root.gateway(&["up", "--root", folder]);
    assert!(!outcome.status.success(), "{outcome:?}");
    assert!(outcome.stderr.contains("1342"), "{}", outcome.stderr);
    assert!(!outcome.stdout.contains("ready"), "{}", outcome.stdout);
}
