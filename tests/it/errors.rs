//! The table of errors: each row's status, code and header fields, that nothing is stored, and that the next request
//! is served. Rates, malformed HTTP and crashes have separate modules.

use sq_tests::answer::{Answer, is_uuid};
use sq_tests::deployment::Deployment;
use sq_tests::peers::Server;
use sq_tests::root::Root;
use sq_tests::setup::{Setup, Tenant, key_of};

const READ_KEY: &str = "alice-reads-only";
const EXPIRED_KEY: &str = "alice-of-yesterday";
const UUID: &str = "0191b2c3-d4e5-7f60-8a9b-0c1d2e3f4a5b";

fn deployment() -> Deployment {
    let alice = Tenant::new("alice", 1341).with_key(READ_KEY, "read", None).with_key(
        EXPIRED_KEY,
        "write",
        Some("2020-01-01T00:00:00Z"),
    );
    let sue = Tenant::new("sue", 1342).in_state("suspended");
    let rex = Tenant::new("rex", 1343).in_state("reserved");
    let limits = "body = \"64KiB\"\nhead = \"8KiB\"".to_owned();
    Deployment::start(&Setup { tenants: vec![alice, sue, rex], limits, ..Setup::default() })
}

/// A row: the client, the request and its body, and the expected response.
type Row = (&'static str, &'static str, &'static str, Option<&'static [u8]>, u16, &'static str);

const AT: &str = "p=text&c=1.1.1/1.1.1/1.1.1";

const ROWS: [Row; 44] = [
    ("alice", "POST", "/api/v2/insert?AT", Some(b"ab\xff"), 400, "invalid_utf8"),
    ("alice", "GET", "/api/v2/insert?AT&s=%ff", None, 400, "invalid_utf8"),
    ("alice", "GET", "/api/v2/%ff?AT", None, 400, "invalid_utf8"),
    ("alice", "POST", "/api/v2/insert?p=text&c=garbage", Some(b"x"), 400, "invalid_coordinate"),
    ("alice", "POST", "/api/v2/insert?p=text&c=", Some(b"x"), 400, "invalid_coordinate"),
    ("alice", "GET", "/api/v2/update?p=text&c=1.1.1/1.1.1/1.1.0&s=x", None, 400, "invalid_coordinate"),
    ("alice", "GET", "/api/v2/select?p=text&c=1.1.1/1.1", None, 400, "invalid_coordinate"),
    ("alice", "GET", "/api/v2/delete?p=text&c=1.1.1/1.1.1/1.1.x", None, 400, "invalid_coordinate"),
    ("alice", "GET", "/api/v2/query?p=text&set=1.1.1/1.1.1/x", None, 400, "invalid_coordinate"),
    ("alice", "GET", "/api/v2/insert?p=.text&c=1.1.1/1.1.1/1.1.1&s=x", None, 400, "invalid_phext"),
    ("alice", "GET", "/api/v2/get?p=a%00b", None, 400, "invalid_phext"),
    ("alice", "GET", "/api/v2/insert?s=x", None, 400, "missing_parameter"),
    ("alice", "GET", "/api/v2/insert?p=text&s=x", None, 400, "missing_parameter"),
    ("alice", "GET", "/api/v2/select?p=text", None, 400, "missing_parameter"),
    ("alice", "GET", "/api/v2/insert?c=1.1.1/1.1.1/1.1.1", None, 400, "missing_parameter"),
    ("alice", "GET", "/api/v2/query?p=text", None, 400, "missing_parameter"),
    ("alice", "GET", "/api/v2/query?p=text&set=1.1.1/1.1.1/1.1.1&limit=many", None, 400, "invalid_parameter"),
    ("alice", "GET", "/api/v2/query?p=text&set=1.1.1/1.1.1/1.1.1&limit=-1", None, 400, "invalid_parameter"),
    ("alice", "POST", "/api/v2/insert?AT", Some(b"ab\x17cd"), 400, "break_in_scroll"),
    ("alice", "GET", "/api/v2/update?AT&s=ab%01cd", None, 400, "break_in_scroll"),
    ("nobody", "POST", "/api/v2/insert?AT", Some(b"x"), 401, "invalid_key"),
    ("", "POST", "/api/v2/insert?AT", Some(b"x"), 401, "missing_key"),
    ("expired", "POST", "/api/v2/insert?AT", Some(b"x"), 401, "expired_key"),
    ("sue", "POST", "/api/v2/insert?AT", Some(b"x"), 403, "tenant_suspended"),
    ("rex", "POST", "/api/v2/insert?AT", Some(b"x"), 403, "tenant_reserved"),
    ("reader", "POST", "/api/v2/insert?AT", Some(b"x"), 403, "read_only_key"),
    ("alice", "POST", "/api/v2/insert?p=text&c=bob.1.1.1/1.1.1/1.1.1", Some(b"x"), 403, "foreign_namespace"),
    ("alice", "POST", "/api/v2/insert?p=../text&c=1.1.1/1.1.1/1.1.1", Some(b"x"), 403, "forbidden_phext"),
    ("alice", "GET", "/", None, 404, "unknown_route"),
    ("alice", "GET", "/api/v2/", None, 404, "unknown_route"),
    ("alice", "GET", "/api/v2/selectx?AT", None, 404, "unknown_route"),
    ("alice", "POST", "/api/v2/insert/?AT", Some(b"x"), 404, "unknown_route"),
    ("alice", "GET", "/api/v1/select?AT", None, 404, "unknown_route"),
    ("alice", "GET", "/admin/tenants", None, 404, "unknown_route"),
    ("alice", "GET", "/metrics", None, 404, "unknown_route"),
    ("alice", "POST", "/api/v2/select?AT", Some(b"x"), 405, "method_not_allowed"),
    ("alice", "PUT", "/api/v2/update?AT", Some(b"x"), 405, "method_not_allowed"),
    ("alice", "DELETE", "/api/v2/delete?AT", None, 405, "method_not_allowed"),
    ("alice", "GET", "/api/v2/where", None, 405, "method_not_allowed"),
    ("alice", "PATCH", "/health", None, 405, "method_not_allowed"),
    ("alice", "TRACE", "/api/v2/select?AT", None, 405, "method_not_allowed"),
    ("alice", "POST", "/api/v2/insert?AT", Some(&[b'x'; 65537]), 413, "body_too_large"),
    ("alice", "GET", "/api/v2/insert?AT&s=LONG", None, 414, "uri_too_long"),
    ("padded", "POST", "/api/v2/insert?AT", Some(b"x"), 431, "headers_too_large"),
];

fn ask(running: &Deployment, row: &Row) -> Answer {
    let (who, method, target, body, ..) = row;
    let key = match *who {
        "" => None,
        "reader" => Some(READ_KEY.to_owned()),
        "expired" => Some(EXPIRED_KEY.to_owned()),
        "padded" => Some(key_of("alice")),
        name => Some(key_of(name)),
    };
    let padding = if *who == "padded" { format!("X-Pad: {}\r\n", "x".repeat(9000)) } else { String::new() };
    let target = target.replace("AT", AT).replace("LONG", &"x".repeat(9000));
    running.client(key.as_deref()).request(method, &target, &padding, *body)
}

#[test]
fn each_row_of_the_table() {
    let running = deployment();
    let alice = running.client_of("alice");
    alice.get("/api/v2/update?p=kept&c=1.1.1/1.1.1/1.1.1&s=kept").ok();
    let stored = running.stored();
    for row in &ROWS {
        let answer = ask(&running, row);
        println!("{} {} as {:?}: {} {}", row.1, row.2, row.0, row.4, row.5);
        answer.problem(row.4, row.5);
        let told = answer.text();
        for secret in [key_of("alice"), running.path().display().to_string()] {
            assert!(!told.contains(&secret), "the answer tells a secret: {told}");
        }
        assert_eq!(running.stored(), stored, "something was stored");
        assert_eq!(alice.get("/api/v2/select?p=kept&c=1.1.1/1.1.1/1.1.1").ok(), "kept");
    }
}

#[test]
fn members_that_some_errors_have() {
    let running = deployment();
    let alice = running.client_of("alice");
    let in_body = alice.post(&format!("/api/v2/insert?{AT}"), b"ab\x17cd").problem(400, "break_in_scroll");
    assert_eq!(in_body["offset"], 2);
    let not_utf8 = alice.post(&format!("/api/v2/insert?{AT}"), b"abc\xc0\x80").problem(400, "invalid_utf8");
    assert_eq!((&not_utf8["offset"], &not_utf8["part"]), (&3.into(), &"body".into()));
    for (route, allow) in
        [("select", "GET, HEAD, OPTIONS"), ("where", "POST, OPTIONS"), ("update", "GET, POST, OPTIONS")]
    {
        let answer = alice.request("PUT", &format!("/api/v2/{route}?{AT}"), "", Some(b""));
        answer.problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow), "{route}");
    }
}

#[test]
fn every_break_is_refused_inside_a_scroll() {
    let running = deployment();
    let alice = running.client_of("alice");
    for byte in [0x01, 0x17, 0x18, 0x19, 0x1a, 0x1c, 0x1d, 0x1e, 0x1f] {
        for (body, offset) in [(vec![byte], 0), (vec![b'a', b'b', byte, b'c'], 2)] {
            let problem = alice.post(&format!("/api/v2/update?{AT}"), &body).problem(400, "break_in_scroll");
            assert_eq!(problem["offset"], offset, "{byte:#x}");
        }
    }
    assert!(running.stored().is_empty());
    alice.post(&format!("/api/v2/update?{AT}"), "line\nline\ttab\u{7}bell").ok();
}

#[test]
fn a_request_id_is_kept_when_it_is_a_uuid() {
    let running = deployment();
    let alice = running.client_of("alice");
    let id_of = |sent: &str| {
        let answer =
            alice.request("GET", &format!("/api/v2/select?{AT}"), &format!("X-Request-Id: {sent}\r\n"), None);
        answer.ok();
        answer.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id_of(UUID), UUID);
    let without_hyphens = UUID.replace('-', "");
    assert!([UUID, &without_hyphens].contains(&id_of(&without_hyphens).as_str()));
    for no_uuid in ["1", "not-a-uuid", &UUID[1..], "", "0191b2c3-d4e5-7f60-8a9b-0c1d2e3f4a5g"] {
        let given = id_of(no_uuid);
        assert!(is_uuid(&given) && given != no_uuid, "{no_uuid:?} became {given:?}");
        assert_eq!(given.replace('-', "").as_bytes()[12], b'7', "ours is a UUIDv7: {given}");
    }
    let (first, second) = (id_of("x"), id_of("x"));
    assert_ne!(first, second);
    let sent = format!("X-Request-Id: {UUID}\r\n");
    let problem = alice.request("GET", "/nowhere", &sent, None).problem(404, "unknown_route");
    assert_eq!(problem["request_id"], UUID);
}

#[test]
fn answers_carry_what_every_answer_carries() {
    let running = deployment();
    let alice = running.client_of("alice");
    alice.post(&format!("/api/v2/update?{AT}"), "text").ok();
    for route in ["version", "select", "toc", "get", "checksum", "status", "load", "delta"] {
        let answer = alice.get(&format!("/api/v2/{route}?{AT}"));
        answer.ok();
        answer.assert_common_headers();
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{route}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{route}");
    }
    for target in [
        format!("/api/v2/query?{AT}&set=1.1.1/1.1.1/1.1.1"),
        format!("/api/v2/json-export?{AT}"),
        "/api/v2/phexts".to_owned(),
    ] {
        let answer = alice.get(&target);
        answer.ok();
        answer.assert_common_headers();
        assert_eq!(answer.header("content-type"), Some("application/json"), "{target}");
        assert!(answer.json().is_array(), "{answer}");
    }
    let phexts = alice.get("/api/v2/phexts").json();
    assert_eq!(
        (&phexts[0]["phext"], &phexts[0]["bytes"], &phexts[0]["scrolls"]),
        (&"text".into(), &4.into(), &1.into())
    );
    running.client(None).get("/health").assert_common_headers();
}

#[test]
fn origins_are_allowed_as_configured() {
    let preflight = "Origin: https://app.example.org\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n";
    let with_cors = |origins: &str| {
        Deployment::start(&Setup { cors: format!("allow_origins = {origins}"), ..Setup::default() })
    };
    let allowed = |running: &Deployment, origin: &str| {
        let headers = preflight.replace("https://app.example.org", origin);
        let options = running.client(None).request("OPTIONS", "/api/v2/update", &headers, None);
        assert_eq!((options.status, options.body.len()), (204, 0), "{options}");
        let get = running.client_of("alice").request(
            "GET",
            "/api/v2/version",
            &format!("Origin: {origin}\r\n"),
            None,
        );
        get.ok();
        let of = |answer: &Answer| answer.header("access-control-allow-origin").map(str::to_owned);
        assert_eq!(of(&options), of(&get));
        of(&get)
    };
    let nobody = with_cors("[]");
    assert_eq!(allowed(&nobody, "https://app.example.org"), None);
    let one = with_cors("[\"https://app.example.org\"]");
    assert_eq!(allowed(&one, "https://app.example.org").as_deref(), Some("https://app.example.org"));
    assert_eq!(allowed(&one, "https://evil.example.org"), None);
    assert_eq!(allowed(&one, "https://app.example.org.evil.example"), None);
    assert_eq!(allowed(&one, "null"), None);
    let options = one.client(None).request("OPTIONS", "/api/v2/update", preflight, None);
    let get = one.client_of("alice").request("GET", "/api/v2/version", preflight, None);
    for (answer, list, names) in [
        (&options, "access-control-allow-headers", ["If-Match", "Idempotency-Key"]),
        (&options, "access-control-allow-headers", ["traceparent", "tracestate"]),
        (&get, "access-control-expose-headers", ["ETag", "Idempotency-Replayed"]),
    ] {
        let listed: Vec<&str> = answer.header(list).unwrap().split(", ").collect();
        assert!(names.iter().all(|name| listed.contains(name)), "{answer}");
    }
    let everybody = with_cors("[\"*\"]");
    assert!(allowed(&everybody, "https://app.example.org").is_some());
}

#[test]
fn without_a_pool_the_worker_is_unavailable() {
    let root = Root::new(&Setup::default());
    let gateway = Server::gateway(&root, &key_of("alice"));
    let answer = gateway.client.get(&format!("/api/v2/select?{AT}"));
    answer.problem(503, "worker_unavailable");
    answer.retry_after_s();
    gateway.client.post(&format!("/api/v2/insert?{AT}"), "x").problem(503, "worker_unavailable");
    assert!(root.stored().is_empty());
    assert_eq!(gateway.client.get("/health").status, 200);
}

#[test]
fn over_the_quota_nothing_is_written_and_reads_go_on() {
    let running = Deployment::start(&Setup { limits: "quota = \"4KiB\"".to_owned(), ..Setup::default() });
    let alice = running.client_of("alice");
    alice.post(&format!("/api/v2/update?{AT}"), vec![b'x'; 3000]).ok();
    let stored = running.stored();
    for target in [format!("/api/v2/insert?{AT}"), "/api/v2/insert?p=other&c=1.1.1/1.1.1/1.1.1".to_owned()] {
        let problem = alice.post(&target, vec![b'y'; 2000]).problem(507, "quota_exceeded");
        assert_eq!(problem["quota"], 4096, "{problem}");
        assert!(problem["used"].as_u64().is_some_and(|used| (3000..=4096).contains(&used)), "{problem}");
    }
    assert_eq!(running.stored(), stored);
    assert_eq!(alice.get(&format!("/api/v2/select?{AT}")).ok().len(), 3000);
    alice.get(&format!("/api/v2/delete?{AT}")).ok();
    alice.post("/api/v2/insert?p=other&c=1.1.1/1.1.1/1.1.1", vec![b'y'; 2000]).ok();
    running.client_of("bob").post(&format!("/api/v2/update?{AT}"), vec![b'x'; 3000]).ok();
}
