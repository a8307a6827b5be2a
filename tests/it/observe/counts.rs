//! Every request is counted once, under labels that no client can choose.

use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::scrape::Scrape;
use sq_tests::setup::{Setup, Tenant};
use sq_tests::wait;

use super::{Expected, REQUESTS, SELECT, UPDATE, after};

const CONNECTIONS: &str = "sq_gateway_connections";

fn deployment() -> Deployment {
    let alice = Tenant::new("alice", 1341).with_key("reads-only", "read", None).with_key(
        "expired",
        "write",
        Some("2020-01-01T00:00:00Z"),
    );
    let mut slow = Tenant::new("slow", 1345);
    slow.plan = Some("slow");
    let tenants = vec![
        alice,
        Tenant::new("bob", 1342).in_state("suspended"),
        Tenant::new("carol", 1343).in_state("reserved"),
        slow,
    ];
    let limits = "body = \"1KiB\"".to_owned();
    let plans = "[plan.slow]\nper_tenant = \"1/h\"\n".to_owned();
    Deployment::start(&Setup { tenants, limits, plans, ..Setup::default() })
}

#[test]
fn every_answer_is_counted_once() {
    let running = deployment();
    let mut expected = Expected::default();
    let alice = running.client_of("alice");
    let mut check = |tenant, command, status, code, answer: Answer| {
        assert_eq!(answer.status, status, "{answer}");
        expected.add(tenant, command, status, code);
    };
    let own = |method: &str, target: &str, fields: &str, body: Option<&[u8]>| {
        alice.request(method, target, fields, body)
    };
    check("alice", "update", 200, "", alice.post(UPDATE, "x"));
    check("alice", "select", 200, "", alice.get(SELECT));
    check("alice", "select", 200, "", alice.get(SELECT));
    check("alice", "phexts", 200, "", alice.get("/api/v2/phexts"));
    check("alice", "select", 400, "invalid_coordinate", alice.get("/api/v2/select?p=text&c=0"));
    check("alice", "update", 400, "invalid_utf8", alice.post(UPDATE, b"\xff"));
    check("alice", "select", 400, "invalid_utf8", alice.get("/api/v2/select?p=%ff"));
    check("alice", "select", 403, "foreign_namespace", alice.get(&SELECT.replace("c=", "c=bob.")));
    check("alice", "-", 404, "unknown_route", alice.get("/api/v2/nothing"));
    check("alice", "select", 405, "method_not_allowed", own("DELETE", SELECT, "", None));
    check(
        "alice",
        "update",
        412,
        "precondition_failed",
        own("POST", UPDATE, "If-Match: \"a\"\r\n", Some(b"y")),
    );
    check("alice", "update", 413, "body_too_large", alice.post(UPDATE, [b'x'; 1025]));
    check("alice", "update", 413, "body_too_large", alice.post_chunks(UPDATE, &[&[b'x'; 1025]]));
    check("alice", "update", 403, "read_only_key", running.client(Some("reads-only")).post(UPDATE, "x"));
    check("-", "-", 401, "expired_key", running.client(Some("expired")).get(SELECT));
    check("-", "-", 401, "missing_key", running.client(None).get(SELECT));
    check("-", "-", 401, "invalid_key", running.client(Some("wrong")).get(SELECT));
    check("-", "-", 400, "bad_request", own("GET", SELECT, "X-SQ-API-Key: other\r\n", None));
    check("-", "-", 403, "tenant_suspended", running.client_of("bob").get(SELECT));
    check("-", "-", 403, "tenant_reserved", running.client_of("carol").get(SELECT));
    check("slow", "select", 200, "", running.client_of("slow").get(SELECT));
    check("slow", "-", 429, "rate_limited_tenant", running.client_of("slow").get(SELECT));
    let nobody = running.client(None);
    check("-", "health", 200, "", nobody.get("/health"));
    check("-", "health", 405, "method_not_allowed", nobody.post("/health", "x"));
    check("-", "ready", 200, "", nobody.get("/ready"));
    check("-", "preflight", 204, "", nobody.request("OPTIONS", SELECT, "", None));
    // Refused by the edge.
    check("-", "-", 400, "bad_request", nobody.raw("GET / HTTP/1.1\r\n\r\n"));
    check("-", "-", 414, "uri_too_long", nobody.get(&format!("/{}", "x".repeat(70_000))));
    let wide = format!("X-Wide: {}\r\n", "x".repeat(70_000));
    check("-", "-", 431, "headers_too_large", nobody.request("GET", "/", &wide, None));
    check("-", "-", 405, "method_not_allowed", nobody.raw("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"));
    let scrape = expected.assert_counted(running.address);
    // As many waits as requests that a worker received completely.
    let waits = scrape.of("sq_gateway_upstream_duration_seconds_count");
    let of = |command: &str| {
        waits.get(&format!("sq_gateway_upstream_duration_seconds_count{{command=\"{command}\"}}")).copied()
    };
    assert_eq!((of("select"), of("update"), of("phexts"), waits.len()), (Some(5.0), Some(2.0), Some(1.0), 3));
    for command in ["select", "update", "phexts"] {
        let sum = |metric: &str| scrape.value(&format!("sq_gateway_{metric}_sum{{command=\"{command}\"}}"));
        let (whole, waited) = (sum("request_duration_seconds"), sum("upstream_duration_seconds"));
        assert!(0.0 < waited && waited < whole, "{command}: {waited} of {whole}");
    }
}

#[test]
fn requests_on_one_connection_are_counted_each() {
    let running = Deployment::start(&Setup::default());
    let client = running.client_of("alice");
    let mut connection = client.connect();
    for _ in 0..50 {
        connection.send((client.head("GET", SELECT) + "\r\n").as_bytes());
        connection.answer().ok();
    }
    let mut expected = Expected::default();
    (0..50).for_each(|_| expected.add("alice", "select", 200, ""));
    let scrape = expected.assert_counted(running.address);
    assert_eq!(scrape.value(CONNECTIONS), 1.0);
}

#[test]
fn connections_are_counted_while_they_are_open() {
    let running = Deployment::start(&Setup::default());
    let open = || Scrape::of_gateway(running.address).value(CONNECTIONS);
    assert_eq!(open(), 0.0);
    let clients: Vec<_> = (0..7).map(|_| running.client(None).connect()).collect();
    wait::until("seven connections", || open() == 7.0);
    drop(clients);
    wait::until("no connection", || open() == 0.0);
    running.client(None).raw("nonsense\r\n\r\n").problem(400, "bad_request");
    wait::until("no connection after a refusal", || open() == 0.0);
}

/// The series that name this tenant.
fn series_of(running: &Deployment, tenant: &str) -> Vec<String> {
    let scrape = Scrape::of_gateway(running.address);
    let label = format!("tenant=\"{tenant}\"");
    scrape.series().filter(|series| series.contains(&label)).map(str::to_owned).collect()
}

#[test]
fn series_of_a_removed_tenant_are_removed() {
    let running = Deployment::start(&Setup::default());
    running.client_of("alice").get(SELECT).ok();
    let bob = running.client_of("bob");
    bob.get(SELECT).ok();
    wait::until("bob's series", || series_of(&running, "bob").len() == 2);
    // One of bob's requests ends after bob is removed.
    let mut last = bob.connect();
    last.send((bob.head("POST", UPDATE) + "Content-Length: 4\r\n\r\nha").as_bytes());
    wait::until("a request in flight", || {
        Scrape::of_gateway(running.address).value("sq_gateway_in_flight{tenant=\"bob\"}") == 1.0
    });
    running.with_config(&["tenants", "remove", "bob"]).success();
    wait::until("the end of bob's series", || series_of(&running, "bob").is_empty());
    last.send(b"lf");
    last.answer();
    wait::until("the last request's line", || running.log().matches("/api/v2/update").count() == 1);
    assert_eq!(series_of(&running, "bob"), [""; 0]);
    assert_eq!(series_of(&running, "alice").len(), 2);
}

#[test]
fn clients_cannot_create_series() {
    let running = Deployment::start(&Setup::default());
    let alice = running.client_of("alice");
    let ask = |number: usize| {
        let odd = |client: &Client, method: &str, target: &str| {
            let fields = format!("X-Request-Id: odd-{number}\r\nX-Tenant: odd{number}\r\n");
            client.request(method, target, &fields, None);
        };
        odd(&alice, "GET", &format!("/api/v2/odd{number}"));
        odd(&alice, "GET", &format!("/api/v2/select?p=odd{number}&c=odd{number}.1.1.1/1.1.1/1.1.1"));
        odd(&alice, "GET", &format!("/api/v2/select?p=odd{number}&c=1.1.1/1.1.1/1.1.{}", number + 1));
        odd(&alice, &format!("ODD{number}"), SELECT);
        odd(&running.client(Some(&format!("odd{number}"))), "GET", &format!("/odd{number}"));
        odd(&running.client(None), &format!("ODD{number}"), "/health");
        running.client(None).raw(format!("ODD{number} / HTTP/1.1\r\nodd{number}\r\n\r\n"));
    };
    ask(0);
    let names = |scrape: &Scrape| scrape.series().map(str::to_owned).collect::<Vec<_>>();
    let before = names(&after(running.address, 7));
    (1..=40).for_each(ask);
    let scrape = after(running.address, 7 * 41);
    assert_eq!(names(&scrape), before);
    assert!(!before.iter().any(|series| series.contains("odd")), "{before:#?}");
    assert_eq!(scrape.of(REQUESTS).len(), 7);
}
