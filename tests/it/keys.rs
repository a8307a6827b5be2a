//! A key's life: the scope `read`, expiry, rotation and revocation while connections are open, and how wrong keys are
//! counted.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use sq_shared::limits::KEYS_PER_TENANT;
use sq_shared::route::{Methods, Route};
use sq_shared::token::BearerToken;
use sq_tests::client::{Client, Connection};
use sq_tests::deployment::Deployment;
use sq_tests::root::Root;
use sq_tests::setup::{Setup, Tenant, key_of, registry_text};
use sq_tests::{notice, process, wait};

const READ_KEY: &str = "alice-reads-only";
const AT: &str = "p=notes&c=1.1.1/1.1.1/1.1.1";
const SELECT: &str = "/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1";
const UPDATE: &str = "/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// Gateway and worker each apply a change of the registry within a second.
const PROMISED: Duration = Duration::from_secs(1);

fn tenants(root: &Root, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    root.with_config(&[&["tenants"], &words[..]].concat()).success()
}

/// Runs a command that prints a new key, and returns the key's id and the key.
fn new_key(root: &Root, line: &str) -> (String, String) {
    let printed = tenants(root, line);
    let words: Vec<&str> = printed.split_whitespace().collect();
    let [_, id, key] = words[..] else { panic!("{printed}") };
    assert!(key.starts_with("pmb-v1-"), "{printed}");
    (id.to_owned(), key.to_owned())
}

fn shown_keys(root: &Root, name: &str) -> Vec<Value> {
    let shown: Value = serde_json::from_str(&tenants(root, &format!("show {name} --json"))).unwrap();
    shown["keys"].as_array().unwrap().clone()
}

fn shown_key(root: &Root, name: &str, id: &str) -> Value {
    shown_keys(root, name).into_iter().find(|key| key["id"] == id).unwrap_or_else(|| panic!("no key {id}"))
}

/// An open connection that repeats a request.
struct Asker {
    client: Client,
    connection: Connection,
    head: String,
}

impl Asker {
    fn new(client: &Client) -> Self {
        let head = client.head("GET", SELECT) + "\r\n";
        Self { client: client.clone(), connection: client.connect(), head }
    }

    /// Starts when the key is known: before that, a response may close the connection.
    fn with_new_key(client: &Client) -> Self {
        wait::until("the new key", || client.get(SELECT).status == 200);
        Self::new(client)
    }

    /// The status of another response on the same connection.
    fn ask(&mut self) -> u16 {
        self.connection.send(self.head.as_bytes());
        self.connection.answer().status
    }

    /// How long it takes until the answer has this status; every answer before has the other one. When the worker
    /// knows of a change and the gateway not yet, that is a 503 and the end of the connection.
    fn becomes(&mut self, wanted: u16, before: u16) -> Duration {
        let start = Instant::now();
        wait::until(&format!("the status {wanted}"), || {
            let status = self.ask();
            assert!([wanted, before, 503].contains(&status), "{status} came before {wanted}");
            if status == 503 {
                self.connection = self.client.connect();
            }
            status == wanted
        });
        start.elapsed()
    }
}

#[test]
fn a_read_key_writes_by_no_verb_and_in_no_way() {
    let alice = Tenant::new("alice", 1341).with_key(READ_KEY, "read", None);
    let running = Deployment::start(&Setup { tenants: vec![alice], ..Setup::default() });
    running.client_of("alice").get(&format!("{UPDATE}&s=kept")).ok();
    let stored = running.stored();
    let writes: Vec<Route> = Route::ALL.into_iter().filter(|route| route.writes()).collect();
    assert_eq!(writes, [Route::Insert, Route::Update, Route::Delete]);
    for (reader, is_gateway) in
        [(running.client(Some(READ_KEY)), true), (running.slot(1341, Some(READ_KEY)), false)]
    {
        for route in &writes {
            let path = format!("/api/v2/{}", route.as_str());
            let in_query = format!("{path}?{AT}&s=x");
            let form = format!("{AT}&s=x");
            let answers = [
                reader.get(&in_query),
                reader.get(&format!("{path}?{AT}")),
                reader.post(&in_query, ""),
                reader.post(&format!("{path}?{AT}"), "x"),
                reader.post_chunks(&format!("{path}?{AT}"), &[b"x"]),
                reader.request("POST", &path, FORM, Some(form.as_bytes())),
                reader.request("GET", &path, FORM, Some(form.as_bytes())),
                reader.request("POST", &in_query, "Idempotency-Key: one\r\n", Some(b"x")),
                reader.request("POST", &in_query, "X-HTTP-Method-Override: GET\r\n", Some(b"x")),
                // The key is checked before anything else of the request, even before its mistakes.
                reader.post(&format!("{path}?p=../bob&c=0"), "x"),
            ];
            for answer in answers {
                let refused = answer.refused(403, "read_only_key");
                assert!(!is_gateway || answer.problem(403, "read_only_key") == refused);
            }
        }
        assert_eq!(running.stored(), stored, "a key that may only read has written");
        for route in Route::ALL.into_iter().filter(|route| !route.writes()) {
            let target =
                format!("/api/v2/{}?{AT}&from=1.1.1/1.1.1/1.1.1&to=9.9.9/9.9.9/9.9.9", route.as_str());
            if route.methods() != Methods::Post {
                reader.get(&target).ok();
            }
            if route.methods() != Methods::Get {
                let text = if route.methods() == Methods::Post { "text" } else { "" };
                reader.post(&target, text).ok();
            }
        }
        assert_eq!(reader.get(SELECT).ok(), "kept");
    }
    assert_eq!(running.stored(), stored, "a read has stored something");
}

#[test]
fn a_key_expires_on_an_open_connection() {
    let running = Deployment::start(&Setup::default());
    running.client_of("alice").get(SELECT).ok();
    let (id, key) = new_key(&running, "add-key alice --scope read --expires-in 6s");
    let end_s = shown_key(&running, "alice", &id)["expires_s"].as_i64().unwrap();
    let mut askers = [running.client(Some(&key)), running.slot(1341, Some(&key))]
        .map(|client| Asker::with_new_key(&client));
    wait::until("the last second", || sq_shared::clock::now_s() >= end_s - 1);
    for asker in &mut askers {
        asker.becomes(401, 200);
        assert!(sq_shared::clock::now_s() >= end_s, "refused before its time");
    }
    running.client(Some(&key)).get(SELECT).problem(401, "expired_key");
    running.slot(1341, Some(&key)).get(SELECT).refused(401, "expired_key");
    let shown = shown_key(&running, "alice", &id);
    assert_eq!((&shown["scope"], &shown["expired"]), (&"read".into(), &true.into()), "{shown}");
    assert!(tenants(&running, "show alice").contains(&format!("{id} (read, expired 2")));
    running.client_of("alice").get(SELECT).ok();
    assert_eq!(
        tenants(&running, "revoke-key alice --expired"),
        format!("key {id} of tenant alice is revoked\n")
    );
    assert_eq!(shown_keys(&running, "alice").len(), 1);
    running.client_of("alice").get(SELECT).ok();
}

#[test]
fn key_that_expires_on_the_way_to_the_worker_is_refused_as_expired() {
    let running = Deployment::start(&Setup::default());
    running.client_of("alice").get(SELECT).ok();
    let (id, key) = new_key(&running, "add-key alice --scope read --expires-in 5s");
    let end_s = shown_key(&running, "alice", &id)["expires_s"].as_i64().unwrap();
    let mut asker = Asker::with_new_key(&running.client(Some(&key)));
    let worker = wait::until_some("alice's worker", || running.worker_of("alice"));
    process::signal(worker.pid, Signal::STOP);
    asker.connection.send(asker.head.as_bytes());
    let at_worker = std::net::SocketAddrV4::new(running.address, 1341);
    wait::until("the request at the worker", || process::unread_bytes(at_worker) > 0);
    assert!(sq_shared::clock::now_s() < end_s, "the key has expired too early");
    wait::until("its end", || sq_shared::clock::now_s() >= end_s);
    process::signal(worker.pid, Signal::CONT);
    asker.connection.answer().problem(401, "expired_key");
}

#[test]
fn rotated_key_is_valid_for_its_grace_time() {
    let running = Deployment::start(&Setup::default());
    let (old, before_s) = (key_of("alice"), sq_shared::clock::now_s());
    let (_, new) = new_key(&running, "rotate-key alice --grace 5s");
    let shown = shown_key(&running, "alice", "k1");
    let end_s = shown["expires_s"].as_i64().unwrap();
    assert!((before_s + 5..=sq_shared::clock::now_s() + 5).contains(&end_s), "{shown}");
    assert_eq!(shown_key(&running, "alice", "k2")["expires_s"], Value::Null);
    let mut with_old = Asker::new(&running.client(Some(&old)));
    wait::until("the new key", || running.client(Some(&new)).get(SELECT).status == 200);
    if sq_shared::clock::now_s() < end_s - 1 {
        assert_eq!(with_old.ask(), 200, "the old key is refused in its grace time");
    }
    with_old.becomes(401, 200);
    assert!(sq_shared::clock::now_s() >= end_s, "refused before its time");
    running.client(Some(&old)).get(SELECT).problem(401, "expired_key");
    running.client(Some(&new)).get(&format!("{UPDATE}&s=x")).ok();
    // Now only one key is valid, so it need not be named.
    new_key(&running, "rotate-key alice");
}

#[test]
fn grace_time_does_not_extend_a_keys_life() {
    let alice = Tenant::new("alice", 1341).with_key(READ_KEY, "read", Some("2099-01-01T00:00:00Z"));
    let root = Root::new(&Setup { tenants: vec![alice], ..Setup::default() });
    let ambiguous = root.with_config(&["tenants", "rotate-key", "alice", "--grace", "24h"]);
    assert_eq!(ambiguous.code(), Some(2), "{ambiguous:?}");
    assert!(ambiguous.stderr.contains("k1, k2"), "{ambiguous:?}");
    let (id, _) = new_key(&root, "rotate-key alice --key k2 --grace 1000000d");
    for id in ["k2", id.as_str()] {
        let shown = shown_key(&root, "alice", id);
        assert_eq!((&shown["expires"], &shown["scope"]), (&"2099-01-01T00:00:00Z".into(), &"read".into()));
    }
}

#[test]
fn expired_key_is_not_rotated() {
    let mut alice = Tenant::new("alice", 1341);
    alice.keys[0].expires = Some("2020-01-01T00:00:00Z");
    let root = Root::new(&Setup { tenants: vec![alice], ..Setup::default() });
    let registry = root.read("tenants.toml");
    for arguments in
        [&["tenants", "rotate-key", "alice"][..], &["tenants", "rotate-key", "alice", "--key", "k1"]]
    {
        let outcome = root.with_config(arguments);
        assert!(outcome.code() == Some(1) && outcome.stderr.contains("add-key alice"), "{outcome:?}");
    }
    assert_eq!(root.read("tenants.toml"), registry);
    let checked = root.with_config(&["check"]);
    assert_eq!((checked.code(), checked.stdout.trim()), (Some(0), "ok"), "{checked:?}");
    assert!(checked.stderr.contains("tenant alice is active and has no valid key"), "{checked:?}");
    new_key(&root, "add-key alice");
    assert_eq!(root.with_config(&["check"]).stderr, "");
}

/// Starts an upload. When this returns, all checks of its key are done.
fn begin_upload(client: &Client) -> Connection {
    let mut upload = client.connect();
    upload
        .send((client.head("POST", UPDATE) + "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n").as_bytes());
    assert_eq!(upload.answer().status, 100);
    upload.send(b"a");
    upload
}

/// How long gateway and worker accept a revoked key on open connections.
fn revoke_under_open_connections() -> [Duration; 2] {
    let running = Deployment::start(&Setup::default());
    let (id, key) = new_key(&running, "add-key alice");
    let mut at_worker = Asker::with_new_key(&running.slot(1341, Some(&key)));
    let mut at_gateway = Asker::with_new_key(&running.client(Some(&key)));
    let mut upload = begin_upload(&running.client(Some(&key)));
    tenants(&running, &format!("revoke-key alice {id}"));
    let start = Instant::now();
    at_gateway.becomes(401, 200);
    let gateway = start.elapsed();
    at_worker.becomes(401, 200);
    let worker = start.elapsed();
    running.client(Some(&key)).get(SELECT).problem(401, "invalid_key");
    // Requests in flight are finished: the worker received their heads before the change.
    upload.send(b"bc");
    assert_eq!(upload.answer().ok(), "Updated 3 bytes");
    assert_eq!(running.client_of("alice").get(SELECT).ok(), "abc");
    [gateway, worker]
}

/// A machine with other work to do may be slow once, not each time.
#[test]
fn a_revoked_key_is_refused_within_a_second_on_open_connections() {
    let measured: Vec<[Duration; 2]> = (0..3)
        .map(|_| revoke_under_open_connections())
        .scan(false, |done, times| {
            let was_done = std::mem::replace(done, times.iter().all(|time| *time < PROMISED));
            (!was_done).then_some(times)
        })
        .collect();
    let quick = measured.iter().any(|times| times.iter().all(|time| *time < PROMISED));
    assert!(quick, "gateway and worker: {measured:?}");
    notice::say(&format!(
        "a revoked key was refused by gateway and worker after {:?}",
        measured.last().unwrap()
    ));
}

#[test]
fn key_ids_are_not_reused() {
    let root = Root::new(&Setup::default());
    let id = |line: &str| new_key(&root, line).0;
    assert_eq!(id("add-key alice"), "k2");
    assert_eq!(id("add-key alice"), "k3");
    tenants(&root, "revoke-key alice k3");
    assert_eq!(id("add-key alice"), "k4");
    assert_eq!(id("rotate-key alice --key k4"), "k5");
    for id in ["k5", "k2", "k1"] {
        tenants(&root, &format!("revoke-key alice {id}"));
    }
    assert_eq!(shown_keys(&root, "alice"), Vec::<Value>::new());
    assert_eq!(id("rotate-key alice"), "k6");
    assert_eq!(id("add-key bob"), "k2", "each tenant counts for itself");
    assert!(root.read("tenants.toml").contains("last_key = 5"));
}

/// Such a file is served, so the commands must be able to edit it, and a printed key must be valid.
#[test]
fn printed_key_is_stored_in_a_registry_with_inline_arrays() {
    let root = Root::new(&Setup::default());
    let digest = |token: &str| BearerToken::parse(token.as_bytes()).unwrap().digest();
    let (alice, bob) = (digest("alice-first"), digest("bob-first"));
    for text in [
        format!(
            "[[tenant]]\nname = \"alice\"\nport = 1341\nkey = [{{ id = \"k1\", sha256 = \"{alice}\" }}]\n"
        ),
        format!(
            "tenant = [\n  {{ name = \"bob\", port = 1342, key = [{{ id = \"k1\", sha256 = \"{bob}\" }}] }},\n  \
             {{ name = \"alice\", port = 1341, key = [{{ id = \"k1\", sha256 = \"{alice}\" }}] }},\n]\n"
        ),
    ] {
        root.write_registry(&text);
        let (id, key) = new_key(&root, "add-key alice");
        assert_eq!(id, "k2");
        assert!(root.read("tenants.toml").contains(&digest(&key).to_string()), "the key is stored nowhere");
        tenants(&root, "revoke-key alice k1");
        let ids: Vec<Value> = shown_keys(&root, "alice").iter().map(|key| key["id"].clone()).collect();
        assert_eq!(ids, ["k2"]);
        new_key(&root, "add carol");
    }
}

#[test]
fn number_of_keys_per_tenant_is_bounded() {
    let with_keys = |count: usize| {
        let mut alice = Tenant::new("alice", 1341);
        for number in 1..count {
            alice = alice.with_key(&format!("key-{number}"), "write", Some("2020-01-01T00:00:00Z"));
        }
        registry_text(&[alice])
    };
    let root = Root::new(&Setup::default());
    root.write_registry(&with_keys(KEYS_PER_TENANT));
    root.with_config(&["check"]).success();
    let registry = root.read("tenants.toml");
    let refused = root.with_config(&["tenants", "add-key", "alice"]);
    assert!(
        refused.code() == Some(1) && refused.stderr.contains("revoke-key alice --expired"),
        "{refused:?}"
    );
    assert_eq!(root.read("tenants.toml"), registry);
    new_key(&root, "rotate-key alice");
    tenants(&root, "revoke-key alice --expired");
    assert_eq!(tenants(&root, "revoke-key alice --expired"), "tenant alice has no expired key\n");
    new_key(&root, "add-key alice");
    assert_eq!(shown_keys(&root, "alice").len(), 2);
    root.write_registry(&with_keys(KEYS_PER_TENANT + 1));
    let refused = root.with_config(&["check"]);
    assert!(refused.code() == Some(1) && refused.stderr.contains("tenants.toml:1:"), "{refused:?}");
    assert!(refused.stderr.contains("101 keys; the limit is 100"), "{refused:?}");
}

#[test]
fn wrong_keys_are_counted_by_address_whatever_is_wrong_with_them() {
    let running =
        Deployment::start(&Setup { limits: "failed_keys = \"4/h\"".to_owned(), ..Setup::default() });
    let with = |line: &str, address: &str| {
        let headers = format!("{line}\r\nX-Forwarded-For: {address}\r\n");
        running.client(None).request("GET", SELECT, &headers, None)
    };
    let (too_long, alice) = ("k".repeat(513), key_of("alice"));
    let wrong = [
        "Authorization: Bearer nobodys".to_owned(),
        "X-SQ-API-Key: two words".to_owned(),
        format!("Authorization: Bearer {too_long}"),
        format!("Authorization: Bearer {}", &alice[..alice.len() - 1]),
    ];
    for line in &wrong {
        with(line, "203.0.113.1").problem(401, "invalid_key");
    }
    for line in &wrong {
        with(line, "203.0.113.1").problem(429, "too_many_failed_keys");
    }
    // Clients with a key are still served from there, and wrong keys count against no tenant.
    let right = format!("Authorization: Bearer {alice}");
    with(&right, "203.0.113.1").ok();
    (0..3).for_each(|_| assert_eq!(with(&right, "203.0.113.2").ok(), ""));
    // A missing key, two different keys and an expired key are not guesses.
    let two = format!("{right}\r\nX-SQ-API-Key: other");
    (0..6).for_each(|_| {
        with("X-None: 1", "203.0.113.3").problem(401, "missing_key");
        with(&two, "203.0.113.3").problem(400, "bad_request");
    });
    with(&wrong[0], "203.0.113.3").problem(401, "invalid_key");
}
