//! Web pages in a real browser: a page of an allowed origin reads, writes and sees errors; a page of another origin can
//! neither read nor change anything.

use std::net::SocketAddr;

use serde_json::{Map, Value};
use sq_tests::browser::PageServer;
use sq_tests::deployment::Deployment;
use sq_tests::setup::{Setup, Tenant, key_of};
use sq_tests::target::url;

/// A system that allows these origins. Bob may send one request per hour.
fn start(origins: &str) -> Deployment {
    let mut bob = Tenant::new("bob", 1342);
    bob.plan = Some("slow");
    Deployment::start(&Setup {
        tenants: vec![Tenant::new("alice", 1341), bob],
        cors: format!("allow_origins = {origins}"),
        limits: "body = \"4KiB\"".to_owned(),
        plans: "[plan.slow]\nper_tenant = \"1/h\"\n".to_owned(),
        ..Setup::default()
    })
}

/// A page that will call this system.
fn page_of(address: SocketAddr, phext: &str) -> PageServer {
    let page = include_str!("page.html").replace("%gateway%", &url(address, ""));
    let page = page.replace("%key%", &key_of("alice")).replace("%limited%", &key_of("bob"));
    PageServer::start(&page.replace("%phext%", phext))
}

fn field<'s>(seen: &'s Value, step: &str, name: &str) -> &'s str {
    let value = seen[step]["fields"].get(name).and_then(Value::as_str);
    value.unwrap_or_else(|| panic!("{step} shows no {name}: {seen:#}"))
}

/// Everything works, and the page can read error responses.
fn assert_sees_everything(seen: &Value, phext: &str) {
    let statuses = [
        ("write", 200),
        ("repeat", 200),
        ("read", 200),
        ("get_write", 200),
        ("condition", 412),
        ("no_key", 401),
        ("wrong_key", 401),
        ("unknown", 404),
        ("too_large", 413),
        ("in_time", 200),
        ("limited", 429),
    ];
    for (step, status) in statuses {
        assert_eq!(seen[step]["status"], status, "{step}: {seen:#}");
        assert_eq!(field(seen, step, "x-request-id").len(), 36, "{step}");
        if status >= 400 {
            let problem: Value = serde_json::from_str(seen[step]["body"].as_str().unwrap()).unwrap();
            assert_eq!(problem["status"], status, "{step}");
        }
    }
    assert_eq!(seen["read"]["body"], "from a page", "{phext}: {seen:#}");
    assert!(field(seen, "read", "etag").starts_with('"'));
    assert_eq!(field(seen, "repeat", "idempotency-replayed"), "true");
    assert!(field(seen, "in_time", "ratelimit-policy").contains("q=1;w=3600"));
    assert!(field(seen, "limited", "ratelimit").contains("r=0"));
    assert!(field(seen, "limited", "retry-after").parse::<u64>().unwrap() > 3000);
}

/// The page can read nothing, not even errors: every step fails as if there were no network.
fn assert_sees_nothing(seen: &Value) {
    let steps = seen.as_object().unwrap_or(&Map::new()).clone();
    assert_eq!(steps.len(), 12, "{seen:#}");
    for (step, outcome) in steps {
        assert_eq!(outcome, serde_json::json!({ "failure": "TypeError" }), "{step}: {seen:#}");
    }
}

#[test]
fn a_page_of_an_allowed_origin_reads_and_writes_and_another_does_not() {
    let skipped = "a page of an allowed origin, and one of another";
    let running = start("[]");
    let (allowed, other) = (page_of(running.listen, "allowed"), page_of(running.listen, "other"));
    let Some(seen) = allowed.open(skipped) else { return };
    assert_sees_nothing(&seen);
    assert!(running.stored().is_empty(), "a page wrote although no origin is allowed");

    let config = running.read("gateway.toml");
    let listed = format!("allow_origins = [\"https://elsewhere.example\", \"{}\"]", allowed.origin);
    running.write("gateway.toml", &config.replace("allow_origins = []", &listed));
    let origin = format!("Origin: {}\r\n", allowed.origin);
    sq_tests::wait::until("the new config", || {
        let answer = running.client(None).request("GET", "/health", &origin, None);
        answer.header("access-control-allow-origin") == Some(&allowed.origin)
    });
    let seen = allowed.open(skipped).unwrap_or_default();
    assert_sees_everything(&seen, "allowed");
    assert_eq!(seen["sandbox"]["failure"], "TypeError", "an origin of null was let in: {seen:#}");
    let at = "c=1.1.1/1.1.1/1.1.1";
    let client = running.client_of("alice");
    assert_eq!(client.get(&format!("/api/v2/select?p=allowed&{at}")).ok(), "from a page!");

    let stored = running.stored();
    assert_sees_nothing(&other.open(skipped).unwrap_or_default());
    assert_eq!(running.stored(), stored, "a page of another origin wrote something");
}

#[test]
fn with_a_star_every_origin_reads_and_writes() {
    let running = start("[\"*\"]");
    let page = page_of(running.listen, "any");
    let Some(seen) = page.open("a page of any origin") else { return };
    assert_sees_everything(&seen, "any");
    assert_eq!(seen["sandbox"]["status"], 200, "{seen:#}");
}

/// The header fields for caches and browsers, from the proxy and from the edge.
#[test]
fn answers_say_on_what_they_hang() {
    let page = "https://app.example.org";
    let origin = format!("Origin: {page}\r\n");
    let running = start(&format!("[\"{page}\"]"));
    for headers in [origin.as_str(), "Origin: https://other.example\r\n", ""] {
        let answer = running.client_of("alice").request("GET", "/api/v2/version", headers, None);
        assert_eq!(answer.header("vary"), Some("Origin"), "{answer}");
        let options = running.client(None).request("OPTIONS", "/api/v2/version", headers, None);
        assert_eq!((options.status, options.header("vary")), (204, Some("Origin")), "{options}");
        assert_eq!(options.header("access-control-allow-methods").is_some(), headers.contains(page));
        assert_eq!(options.header("access-control-allow-credentials"), None, "{options}");
    }
    let running = start("[\"*\"]");
    let answer = running.client_of("alice").get("/api/v2/version");
    assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), (Some("*"), None));
    // The edge refuses this request, because its head is too long.
    let refused = running.client(None).raw(format!("GET /{}", "x".repeat(100_000)));
    refused.problem(414, "uri_too_long");
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"), "{refused}");
}
