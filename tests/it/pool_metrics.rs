//! What the pool counts and says of its slots: right to the request, and as Prometheus wants it.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use sq_tests::address;
use sq_tests::client::{Client, Connection};
use sq_tests::deployment::Deployment;
use sq_tests::scrape::Scrape;
use sq_tests::setup::{Setup, Tenant, registry_text};
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::{process, wait};

const DELETE: &str = "/api/v2/delete?p=text&c=1.1.1/1.1.1/1.1.1";

/// Short enough to wait for. Who must be awake meanwhile is held by an upload.
const IDLE: &str = "idle_timeout = \"700ms\"";

fn scrape(running: &Deployment) -> Scrape {
    Scrape::of_pool(running.address)
}

fn assert_samples(scrape: &Scrape, expected: &[(&str, f64)]) {
    for (series, value) in expected {
        assert_eq!(scrape.get(series), Some(*value), "{series} in\n{}", scrape.text);
    }
}

fn pool(running: &Deployment) -> Client {
    Client::new(address::at(running.address, 1339), None)
}

fn slot_of(running: &Deployment, tenant: &str) -> Option<Value> {
    let status = running.pool_status();
    let slots = status["slots"].as_array().unwrap_or_else(|| panic!("no slots: {status}")).clone();
    slots.into_iter().find(|slot| slot["tenant"] == tenant)
}

fn wait_for_state(running: &Deployment, tenant: &str, state: &str) -> Value {
    wait::until_some(&format!("{tenant} {state}"), || {
        slot_of(running, tenant).filter(|slot| slot["worker"] == state)
    })
}

/// An upload of alice's that has begun, of three bytes: while it waits for the last two, her worker does not sleep.
fn begin_upload(running: &Deployment) -> Connection {
    let alice = running.client_of("alice");
    let mut upload = alice.connect();
    upload.send((alice.head("POST", UPDATE) + "Content-Length: 3\r\nConnection: close\r\n\r\no").as_bytes());
    upload
}

#[test]
fn a_foreign_name_is_refused_as_at_the_gateways_door() {
    let running = Deployment::start(&Setup::default());
    let named = |host: &str, target: &str| {
        pool(&running).raw(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    for target in ["/health", "/status", "/metrics"] {
        named("evil.example:1339", target).problem(421, "misdirected");
        named("localhost", target).ok();
    }
}

/// What the runbook waits for before a directory is put back.
#[test]
fn a_suspended_tenant_is_named_until_its_worker_is_gone() {
    let running = Deployment::start(&Setup::default());
    running.client_of("alice").post(UPDATE, "x").ok();
    let names_alice = || pool(&running).get("/status").ok().contains("\"tenant\":\"alice\"");
    assert!(names_alice());
    running.with_config(&["tenants", "suspend", "alice"]).success();
    wait::until("the worker gone", || !names_alice());
    assert!(pool(&running).get("/status").ok().contains("\"alice\":"), "what she has stored is still told");
}

#[test]
fn starts_sleeps_and_crashes_are_counted_one_by_one() {
    let running = Deployment::start(&Setup { pool: IDLE.to_owned(), ..Setup::default() });
    assert_samples(
        &scrape(&running),
        &[
            ("sq_pool_workers{state=\"sleeping\"}", 2.0),
            ("sq_pool_workers{state=\"running\"}", 0.0),
            ("sq_pool_workers{state=\"backing_off\"}", 0.0),
            ("sq_pool_workers{state=\"stopping\"}", 0.0),
            ("sq_pool_worker_starts_total{reason=\"connection\",tenant=\"alice\"}", 0.0),
            ("sq_pool_worker_crashes_total{tenant=\"alice\"}", 0.0),
            ("sq_pool_cold_start_seconds_count", 0.0),
        ],
    );

    let mut upload = begin_upload(&running);
    let slot = wait_for_state(&running, "alice", "running");
    assert!(slot["pid"].is_u64() && slot["uptime_ms"].is_u64(), "{slot}");
    assert_eq!((&slot["port"], &slot["starts"], &slot["crashes"]), (&1341.into(), &1.into(), &0.into()));
    upload.send(b"ne");
    assert_eq!(upload.answer().ok(), "Updated 3 bytes");
    wait_for_state(&running, "alice", "sleeping");

    let mut upload = begin_upload(&running);
    let pid = wait::until_some("alice's worker", || running.worker_of("alice")).pid;
    running.client_of("alice").get(SELECT).ok();
    process::signal(pid, Signal::KILL);
    wait::until("the crash", || running.worker_of("alice").is_none_or(|next| next.pid != pid));
    upload.send(b"ne");
    assert_eq!(upload.answer().ok(), "Updated 3 bytes");
    let scrape = wait::until_some("the third cold start", || {
        Some(scrape(&running)).filter(|scrape| scrape.get("sq_pool_cold_start_seconds_count") == Some(3.0))
    });
    assert_samples(
        &scrape,
        &[
            ("sq_pool_worker_starts_total{reason=\"connection\",tenant=\"alice\"}", 2.0),
            ("sq_pool_worker_starts_total{reason=\"crash\",tenant=\"alice\"}", 1.0),
            ("sq_pool_worker_starts_total{reason=\"upgrade\",tenant=\"alice\"}", 0.0),
            ("sq_pool_worker_starts_total{reason=\"connection\",tenant=\"bob\"}", 0.0),
            ("sq_pool_worker_crashes_total{tenant=\"alice\"}", 1.0),
            ("sq_pool_worker_crashes_total{tenant=\"bob\"}", 0.0),
            ("sq_pool_cold_start_seconds_bucket{le=\"+Inf\"}", 3.0),
        ],
    );
    let sum_s = scrape.get("sq_pool_cold_start_seconds_sum").unwrap();
    assert!(sum_s > 0.0 && sum_s < 3.0 * wait::PATIENCE.as_secs_f64(), "{sum_s} s");
}

#[test]
fn storage_and_quota_follow_the_files_and_the_registry() {
    let mut tenants = vec![Tenant::new("alice", 1341), Tenant::new("bob", 1342), Tenant::new("carol", 1343)];
    (tenants[0].plan, tenants[1].plan) = (Some("small"), Some("free"));
    tenants[2].state = "reserved";
    let plans = "[plan.small]\nquota = \"1KiB\"\n[plan.free]\nquota = \"off\"\n".to_owned();
    let running = Deployment::start(&Setup { pool: IDLE.to_owned(), plans, tenants, ..Setup::default() });
    let stored =
        |tenant: &str| scrape(&running).get(&format!("sq_pool_storage_bytes{{tenant=\"{tenant}\"}}"));
    assert_samples(
        &scrape(&running),
        &[
            ("sq_pool_quota_bytes{tenant=\"alice\"}", 1024.0),
            ("sq_pool_quota_bytes{tenant=\"carol\"}", 1_073_741_824.0),
            ("sq_pool_storage_bytes{tenant=\"alice\"}", 0.0),
            ("sq_pool_storage_bytes{tenant=\"carol\"}", 0.0),
            ("sq_pool_disk_bytes{tenant=\"carol\"}", 0.0),
        ],
    );
    assert_eq!(scrape(&running).get("sq_pool_quota_bytes{tenant=\"bob\"}"), None);

    let alice = running.client_of("alice");
    alice.post(UPDATE, vec![b'x'; 1000]).ok();
    // Asleep, its phexts are as large as before.
    wait_for_state(&running, "alice", "sleeping");
    wait::until("alice's storage", || stored("alice") == Some(1000.0));
    let slot = slot_of(&running, "alice").unwrap();
    assert_eq!((&slot["storage_bytes"], &slot["quota_bytes"]), (&1000.into(), &1024.into()), "{slot}");
    alice.post(UPDATE, vec![b'x'; 1030]).problem(507, "quota_exceeded");
    running.client_of("bob").post(UPDATE, vec![b'x'; 5000]).ok();
    wait::until("bob's storage", || stored("bob") == Some(5000.0));
    let on_disk = scrape(&running).get("sq_pool_disk_bytes{tenant=\"bob\"}");
    assert!(on_disk.is_some_and(|bytes| bytes > 0.0), "{on_disk:?}");
    let status = running.pool_status();
    assert_eq!((&status["storage"]["bob"], &status["disk"]["carol"]), (&5000.into(), &0.into()), "{status}");
    assert!(status["disk"]["bob"].as_u64() > Some(0), "{status}");

    alice.post(DELETE, "").ok();
    wait::until("nothing of alice's", || stored("alice") == Some(0.0));

    running.write_registry(&registry_text(&[Tenant::new("bob", 1342)]));
    let gone = wait::until_some("the end of alice's series", || {
        Some(scrape(&running)).filter(|scrape| !scrape.text.contains("alice"))
    });
    assert!(!gone.text.contains("carol") && gone.text.contains("bob"), "{}", gone.text);
}

#[test]
fn a_directory_that_cannot_be_read_has_no_number_and_one_line_in_the_log() {
    let running = Deployment::start(&Setup::default());
    fs::create_dir_all(running.join("data")).unwrap();
    fs::write(running.join("data/bob"), "no directory").unwrap();
    for _ in 0..3 {
        wait::until("a new look", || scrape(&running).get("sq_pool_storage_bytes{tenant=\"bob\"}").is_none());
        wait::pass(Duration::from_millis(1_100));
    }
    assert_eq!(scrape(&running).get("sq_pool_storage_bytes{tenant=\"alice\"}"), Some(0.0));
    assert_eq!(scrape(&running).get("sq_pool_disk_bytes{tenant=\"bob\"}"), None);
    let lines = running.log().matches("failed to measure a tenant's directory").count();
    assert_eq!(lines, 1, "{}", running.log());
}

#[test]
fn what_the_page_does_not_have_it_says() {
    let running = Deployment::start(&Setup::default());
    let refused = pool(&running).get("/nothing");
    assert_eq!((refused.status, &refused.json()["code"]), (404, &"unknown_route".into()), "{refused}");
    for path in ["/health", "/status", "/metrics"] {
        assert!(refused.text().contains(path), "{refused}");
        let head = pool(&running).request("HEAD", path, "", None);
        assert_eq!((head.status, head.body.len()), (200, 0), "{head}");
    }
}
