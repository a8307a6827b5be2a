//! A change is applied before the API responds.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use sq_tests::deployment::Deployment;
use sq_tests::setup::Setup;
use sq_tests::wait;

use super::{Api, SELECT, UPDATE, served, start};

#[test]
fn key_of_an_added_tenant_is_valid_at_once() {
    let (running, api) = start();
    for number in 0..5 {
        let name = format!("new-{number}");
        let answer = api.call(
            "POST",
            "/admin/tenants/add",
            Some(&format!("{{\"name\": \"{name}\", \"quota_mb\": 5}}")),
        );
        assert_eq!(answer.status, 201, "{answer}");
        assert_eq!(answer.header("location"), Some(format!("/admin/tenants/{name}").as_str()), "{answer}");
        let added = answer.json();
        let key = added["key"].as_str().unwrap();
        assert!(key.starts_with("pmb-v1-") && key.len() == 39, "{added}");
        assert_eq!(
            (&added["name"], &added["port"], &added["key_id"]),
            (&json!(name), &json!(1343 + number), &json!("k1"))
        );
        served(&running, key);
        running.client(Some(key)).post(UPDATE, "hers").ok();
        let shown = api.get(&format!("/admin/tenants/{name}"));
        assert_eq!((&shown["quota_bytes"], &shown["state"]), (&json!(5 << 20), &json!("active")));
        assert!(!shown.to_string().contains("pmb-v1-"), "the key is shown again: {shown}");
    }
    assert_eq!(api.names(), ["alice", "bob", "new-0", "new-1", "new-2", "new-3", "new-4"]);
    assert_eq!(running.client(None).get("/health").json()["tenants"], 7);
    let twice = api.call("POST", "/admin/tenants/add", Some("{\"name\": \"alice\"}"));
    twice.problem(409, "tenant_exists");
    let listed: Value =
        serde_json::from_str(&running.with_config(&["tenants", "list", "--json"]).success()).unwrap();
    assert_eq!(listed, api.get("/admin/tenants")["tenants"], "the command and the API differ");
}

#[test]
fn used_directory_needs_adopt() {
    let (running, api) = start();
    fs::create_dir_all(running.join("data/carol")).unwrap();
    running.write("data/carol/old.phext", "old");
    api.call("POST", "/admin/tenants/add", Some("{\"name\": \"carol\"}")).problem(409, "directory_in_use");
    assert_eq!(api.names(), ["alice", "bob"]);
}

/// A loop of links stands for any error of a lookup: root may read everything else.
#[test]
fn unreadable_directory_is_not_treated_as_missing() {
    let (running, api) = start();
    let block = |directory: &str| symlink(directory, running.join(format!("data/{directory}"))).unwrap();
    // The worker creates alice's directory.
    running.client_of("alice").get(SELECT).ok();
    block("carol");
    let before = running.read("tenants.toml");
    api.call("POST", "/admin/tenants/add", Some("{\"name\": \"carol\"}")).problem(503, "files_unavailable");
    let refused = running.with_config(&["tenants", "add", "carol"]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stdout);
    let complaint = refused.stderr;
    assert!(complaint.contains(running.join("data/carol").to_str().unwrap()), "{complaint}");
    assert_eq!(running.read("tenants.toml"), before);
    fs::rename(running.join("data/alice"), running.join("hers")).unwrap();
    block("alice");
    let problem = api.call("DELETE", "/admin/tenants/alice", None).problem(503, "files_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("left as it is"), "{problem}");
    assert!(running.join("data/alice").is_symlink(), "it was moved");
    for name in ["carol", "alice"] {
        let directory = running.join(format!("data/{name}"));
        assert!(running.log().contains(directory.to_str().unwrap()), "no word of it: {}", running.log());
    }
}

#[test]
fn state_plan_and_quota_change_together_and_at_once() {
    let setup = Setup { plans: "[plan.gold]\nquota = \"3MiB\"\n".to_owned(), ..Setup::default() };
    let running = Deployment::start(&setup);
    let api = Api::of(&running);
    let alice = running.client_of("alice");
    alice.get(SELECT).ok();
    api.patch("alice", r#"{"state": "suspended"}"#);
    alice.get(SELECT).problem(403, "tenant_suspended");
    api.patch("alice", r#"{"state": "reserved"}"#);
    alice.get(SELECT).problem(403, "tenant_reserved");
    let shown = api.patch("alice", r#"{"state": "active", "plan": "gold", "quota_mb": 7}"#);
    assert_eq!(
        (&shown["state"], &shown["plan"], &shown["quota_bytes"]),
        (&json!("active"), &json!("gold"), &json!(7 << 20))
    );
    // The pool wakes the worker when it has seen the change.
    wait::until("alice served again", || alice.get(SELECT).status == 200);
    let shown = api.patch("alice", r#"{"quota_mb": null}"#);
    assert_eq!((&shown["plan"], &shown["quota_bytes"]), (&json!("gold"), &json!(3 << 20)));
    let shown = api.patch("alice", r#"{"plan": null}"#);
    assert_eq!((&shown["plan"], &shown["quota_bytes"]), (&Value::Null, &json!(1 << 30)));
    assert_eq!(api.get("/admin/tenants/alice"), shown);
    // One wrong field keeps the others from being changed.
    let before = running.read("tenants.toml");
    api.call("PATCH", "/admin/tenants/alice", Some(r#"{"state": "suspended", "plan": "lead"}"#))
        .problem(400, "invalid_parameter");
    assert_eq!(running.read("tenants.toml"), before);
    alice.get(SELECT).ok();
}

#[test]
fn removed_tenant_is_archived_or_purged() {
    let (running, api) = start();
    running.client_of("alice").post(UPDATE, "hers").ok();
    running.client_of("bob").post(UPDATE, "his").ok();
    let answer = api.call("DELETE", "/admin/tenants/alice", None);
    assert_eq!(answer.json()["directory"], "archived", "{answer}");
    let archive = answer.json()["archive"].as_str().unwrap().to_owned();
    assert_eq!(fs::read_to_string(format!("{archive}/text.phext")).unwrap(), "hers");
    running.client_of("alice").get(SELECT).problem(401, "invalid_key");
    api.call("GET", "/admin/tenants/alice", None).problem(404, "unknown_tenant");
    api.call("DELETE", "/admin/tenants/alice", None).problem(404, "unknown_tenant");

    let answer = api.call("DELETE", "/admin/tenants/bob?purge=true", None);
    assert_eq!(answer.json()["directory"], "purged", "{answer}");
    assert!(!running.join("data/bob").exists());
    assert!(api.names().is_empty());
    let key = api.add("alice");
    served(&running, &key);
    assert_eq!(running.client(Some(&key)).get(SELECT).ok(), "", "a new tenant reads what the old one wrote");
}

#[test]
fn tenant_is_archived_although_the_client_disconnects() {
    let (running, api) = start();
    let alice = running.client_of("alice");
    // Alice's upload is in flight, so the worker runs until it is done.
    let mut upload = alice.connect();
    upload.send((alice.head("POST", UPDATE) + "Content-Length: 4\r\n\r\nhe").as_bytes());
    wait::until("her worker", || running.worker_of("alice").is_some());
    let mut asking = api.client.connect();
    asking.send((api.client.head("DELETE", "/admin/tenants/alice") + "\r\n").as_bytes());
    wait::until("the end of her key", || alice.get(SELECT).status == 401);
    drop(asking);
    // Other tenants are served meanwhile.
    api.patch("bob", r#"{"state": "suspended"}"#);
    upload.send(b"rs");
    assert_eq!(upload.answer().ok(), "Updated 4 bytes");
    wait::until("the archive", || !running.join("data/alice").exists());
    assert!(running.stored().values().any(|bytes| bytes == b"hers"), "it is gone");
}

#[test]
fn tenant_may_be_called_add() {
    let (running, api) = start();
    api.add("add");
    assert_eq!(running.admin().get("/admin/tenants/add").json()["name"], "add");
    assert_eq!(api.get("/admin/tenants/add/stats")["name"], "add");
    let suspended =
        running.admin().request("PATCH", "/admin/tenants/add", "", Some(br#"{"state": "suspended"}"#));
    assert_eq!(suspended.json()["state"], "suspended");
    running.admin().request("DELETE", "/admin/tenants/add", "", None).ok();
    assert_eq!(api.names(), ["alice", "bob"]);
}

#[test]
fn reload_is_immediate_and_reports_every_mistake() {
    let (running, api) = start();
    let answer = api.call("POST", "/admin/reload", None);
    assert_eq!(answer.json(), json!({"tenants": 2}));
    let registry = running.read("tenants.toml");
    running.write_registry(
        &registry.replace("port = 1341", "port = 80").replace("name = \"bob\"", "name = \"Bob\""),
    );
    let problem = api.call("POST", "/admin/reload", None).problem(422, "invalid_files");
    let mistakes = problem["mistakes"].as_array().unwrap();
    let places: Vec<_> =
        mistakes.iter().map(|mistake| (mistake["line"].as_u64(), mistake["column"].as_u64())).collect();
    assert_eq!(places, [(Some(3), Some(8)), (Some(10), Some(8))], "{problem}");
    for mistake in mistakes {
        assert!(mistake["file"].as_str().unwrap().ends_with("tenants.toml"), "{problem}");
        assert!(!mistake["message"].as_str().unwrap().is_empty(), "{problem}");
    }
    // A file with mistakes is not overwritten, and the previous one still applies.
    for (method, target, body) in [
        ("POST", "/admin/tenants/add", r#"{"name": "carol"}"#),
        ("PATCH", "/admin/tenants/alice", r#"{"state": "suspended"}"#),
        ("POST", "/admin/tenants/alice/keys", ""),
        ("DELETE", "/admin/tenants/alice", ""),
    ] {
        api.call(method, target, Some(body)).problem(422, "invalid_files");
    }
    running.client_of("alice").get(SELECT).ok();
    running.write_registry(&registry);
    assert_eq!(api.call("POST", "/admin/reload", None).status, 200);
    running.write("gateway.toml", &(running.read("gateway.toml") + "[nonsense]\n"));
    let problem =
        api.call("POST", "/admin/tenants/add", Some(r#"{"name": "carol"}"#)).problem(422, "invalid_files");
    assert!(problem["mistakes"][0]["file"].as_str().unwrap().ends_with("gateway.toml"), "{problem}");
}

#[test]
fn stats_show_storage_requests_and_worker() {
    let (running, api) = start();
    let stats = api.get("/admin/tenants/alice/stats");
    assert_eq!((&stats["name"], &stats["state"]), (&json!("alice"), &json!("active")));
    assert_eq!((&stats["quota_bytes"], &stats["in_flight"]), (&json!(1 << 30), &json!(0)));
    assert_eq!(
        (&stats["requests"], &stats["rejections"], &stats["last_active"]),
        (&json!(0), &json!(0), &Value::Null)
    );
    for field in ["storage_bytes", "worker", "worker_starts", "worker_crashes"] {
        assert!(stats.get(field).is_some(), "no {field}: {stats}");
    }
    let alice = running.client_of("alice");
    alice.post(UPDATE, "hers").ok();
    alice.post("/api/v2/update?p=text&c=nowhere", "hers").problem(400, "invalid_coordinate");
    // A request is counted when it ends, and a text is measured when it is saved.
    wait::until("her account", || {
        let stats = api.get("/admin/tenants/alice/stats");
        stats["requests"] == 2 && stats["storage_bytes"] == 4
    });
    let stats = api.get("/admin/tenants/alice/stats");
    assert_eq!(fs::metadata(running.join("data/alice/text.phext")).unwrap().len(), 4);
    assert_eq!((&stats["requests"], &stats["rejections"]), (&json!(2), &json!(1)), "{stats}");
    assert_eq!((&stats["worker"], &stats["worker_starts"]), (&json!("running"), &json!(1)), "{stats}");
    assert_eq!(stats["worker_crashes"], 0, "{stats}");
    assert!(stats["last_active"].as_str().is_some_and(|time| time.ends_with('Z')), "{stats}");
    assert_eq!(api.get("/admin/tenants/bob/stats")["requests"], 0, "bob's are hers");
    // The pool has no slot for a tenant that is not served, but still measures its storage.
    api.patch("alice", r#"{"state": "suspended"}"#);
    wait::until("no worker", || api.get("/admin/tenants/alice/stats")["worker"].is_null());
    let stats = api.get("/admin/tenants/alice/stats");
    assert_eq!((&stats["state"], &stats["requests"]), (&json!("suspended"), &json!(2)), "{stats}");
    assert_eq!((&stats["storage_bytes"], &stats["worker_starts"]), (&json!(4), &Value::Null), "{stats}");
    api.call("GET", "/admin/tenants/nobody/stats", None).problem(404, "unknown_tenant");
}
