//! Access to the admin API: with the admin key, and by a `Host` of this machine.

use std::net::Ipv4Addr;

use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::setup::{ADMIN_KEY, Setup, digest_of, key_of};
use sq_tests::wait;

use super::{Api, start};

/// All routes that need the key.
const KEYED: [(&str, &str); 9] = [
    ("GET", "/admin/tenants"),
    ("POST", "/admin/tenants/add"),
    ("GET", "/admin/tenants/alice"),
    ("PATCH", "/admin/tenants/alice"),
    ("DELETE", "/admin/tenants/alice"),
    ("GET", "/admin/tenants/alice/stats"),
    ("POST", "/admin/tenants/alice/keys"),
    ("DELETE", "/admin/tenants/alice/keys/k1"),
    ("POST", "/admin/reload"),
];

#[test]
fn only_the_admin_key_is_accepted() {
    let (running, api) = start();
    let registry = running.read("tenants.toml");
    let other = key_of("alice");
    for (method, target) in KEYED {
        running.admin_with(None).request(method, target, "", None).problem(401, "missing_key");
        for wrong in ["guess", &other, &digest_of(ADMIN_KEY).to_string()] {
            running.admin_with(Some(wrong)).request(method, target, "", None).problem(401, "invalid_key");
            api.assert_declared(method, target, 401);
        }
    }
    assert_eq!(running.read("tenants.toml"), registry);
    for spelling in ["Authorization: Bearer", "Authorization:", "X-SQ-API-Key:"] {
        let line = format!("{spelling} {ADMIN_KEY}\r\n");
        let answer = running.admin_with(None).request("GET", "/admin/tenants", &line, None);
        assert!(answer.ok().contains("\"alice\""), "{spelling}: {answer}");
    }
    let two = format!("X-SQ-API-Key: {other}\r\n");
    running.admin().request("GET", "/admin/tenants", &two, None).problem(400, "bad_request");
}

#[test]
fn wrong_keys_are_limited_and_lock_nobody_out() {
    let setup = Setup { limits: "failed_keys = \"3/min\"".to_owned(), ..Setup::default() };
    let running = Deployment::start(&setup);
    let api = Api::of(&running);
    let stranger = running.admin_with(Some("guess"));
    // Neither a missing key nor the right one counts as a guess.
    for _ in 0..5 {
        running.admin_with(None).get("/admin/tenants").problem(401, "missing_key");
        running.admin().get("/admin/tenants").ok();
    }
    for _ in 0..3 {
        stranger.get("/admin/tenants").problem(401, "invalid_key");
    }
    for (method, target) in KEYED {
        let refused = stranger.request(method, target, "", None);
        refused.problem(429, "too_many_failed_keys");
        assert!((1..=20).contains(&refused.retry_after_s()), "{refused}");
        api.assert_declared(method, target, 429);
    }
    // Malformed keys count as guesses too, in any header field.
    let malformed = format!("X-SQ-API-Key: {}\r\n", "x".repeat(513));
    running
        .admin_with(None)
        .request("GET", "/admin/tenants", &malformed, None)
        .problem(429, "too_many_failed_keys");
    // The right key still works from the same address. All loopback addresses share one count.
    assert_eq!(api.names(), ["alice", "bob"]);
    for last in 2..=60 {
        let elsewhere = running.admin_with(Some("guess")).calling_from(Ipv4Addr::new(127, 0, 0, last).into());
        elsewhere.get("/admin/tenants").problem(429, "too_many_failed_keys");
    }
    // Neither a reload nor tenants' keys reset the count, and the tenants' own count is not used up.
    api.call("POST", "/admin/reload", None).ok();
    stranger.get("/admin/tenants").problem(429, "too_many_failed_keys");
    running.client(Some("guess")).get("/api/v2/version").problem(401, "invalid_key");
}

#[test]
fn guesses_at_once_are_counted_one_by_one() {
    let setup = Setup { limits: "failed_keys = \"5/min\"".to_owned(), ..Setup::default() };
    let running = Deployment::start(&setup);
    let answered: Vec<u16> = std::thread::scope(|scope| {
        let guess = || running.admin_with(Some("guess")).get("/admin/tenants").status;
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(guess)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(answered.iter().filter(|status| **status == 401).count(), 5, "{answered:?}");
    assert!(answered.iter().all(|status| [401, 429].contains(status)), "{answered:?}");
    running.admin().get("/admin/tenants").ok();
}

#[test]
fn health_and_metrics_need_no_key() {
    let (running, api) = start();
    let open = running.admin_with(None);
    for target in ["/health", "/ready"] {
        let answer = open.get(target);
        assert_eq!(answer.json(), serde_json::json!({"status": "ok", "tenants": 2}), "{answer}");
        answer.assert_common_headers();
    }
    assert!(open.get("/metrics").ok().contains("sq_gateway_tenants{state=\"active\"} 2"));
    assert_eq!(open.get("/admin/openapi.json").json(), api.document);
    for target in ["/health", "/ready", "/metrics", "/admin/openapi.json"] {
        let head = open.request("HEAD", target, "", None);
        assert_eq!((head.status, head.body.len()), (200, 0), "{target}: {head}");
        head.assert_common_headers();
    }
    let head = api.call("HEAD", "/admin/tenants/alice", None);
    assert_eq!(head.status, 200, "{head}");
}

#[test]
fn without_a_key_the_api_is_disabled_until_a_reload_sets_one() {
    let setup = Setup::default();
    let root = sq_tests::root::Root::new(&setup);
    let config = root.read("gateway.toml");
    let line = config.lines().find(|line| line.starts_with("admin_key_sha256")).unwrap().to_owned();
    root.write("gateway.toml", &config.replace(&line, ""));
    let running = Deployment::up(root, &[]);
    let api = Api::of(&running);
    for (method, target) in KEYED {
        for key in [None, Some(ADMIN_KEY)] {
            let answer = running.admin_with(key).request(method, target, "", None);
            let problem = answer.problem(503, "admin_key_not_set");
            assert!(problem["detail"].as_str().unwrap().contains("admin_key_sha256"), "{problem}");
            api.assert_declared(method, target, 503);
        }
    }
    running.admin_with(None).get("/health").ok();

    running.write("gateway.toml", &config);
    wait::until("the key", || running.admin().get("/admin/tenants").status == 200);
    running.write(
        "gateway.toml",
        &config.replace(&line, &format!("admin_key_sha256 = \"{}\"", digest_of("next"))),
    );
    wait::until("another key", || running.admin_with(Some("next")).get("/admin/tenants").status == 200);
    running.admin().get("/admin/tenants").problem(401, "invalid_key");
}

/// A request with this `Host`.
fn by_name(client: &Client, host: &str, target: &str) -> sq_tests::answer::Answer {
    client.raw(format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {ADMIN_KEY}\r\nConnection: close\r\n\r\n"
    ))
}

#[test]
fn foreign_host_is_refused_unless_remote_access_is_allowed() {
    let (running, _) = start();
    let client = running.admin();
    for target in ["/", "/health", "/metrics", "/admin/tenants", "/admin/openapi.json"] {
        for host in ["evil.example", "evil.example:1338", "127.0.0.1.evil.example", "192.0.2.1"] {
            by_name(&client, host, target).problem(421, "misdirected");
        }
    }
    for host in ["localhost", "localhost:1338", "127.0.0.1", "[::1]:1338"] {
        by_name(&client, host, "/admin/tenants").ok();
    }
    assert!(by_name(&client, "evil.example", "/health").header("access-control-allow-origin").is_none());
    drop(running);
    let setup = Setup { gateway: "admin_allow_remote = true".to_owned(), ..Setup::default() };
    let running = Deployment::start(&setup);
    by_name(&running.admin(), "gateway.example", "/admin/tenants").ok();
}
