//! The content of a line, for each command and each way in which a request can end.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};
use sq_tests::client::percent_encoded;
use sq_tests::deployment::Deployment;
use sq_tests::process;
use sq_tests::setup::{Setup, Tenant, key_of};
use sq_tests::wait;

use super::{AT, lines, lines_in, lines_when, new_id, setup, text};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const FULL: &str = "alice.1.1.1/1.1.1/1.1.1";

/// A request, and the fields of its line: phext, coordinate, bytes and status.
type Case<'a> = (&'a str, String, &'a str, Option<&'a [u8]>, (Value, Value, Value, u16));

/// Sends the requests one after the other, with alice's key and an id each; checks their lines, and that there are no
/// others.
fn assert_lines(running: &Deployment, key: &str, key_id: &str, cases: &[Case<'_>]) {
    let before = lines(running).len();
    for (number, (method, target, headers, body, expected)) in cases.iter().enumerate() {
        let id = new_id();
        let headers = format!("X-Request-Id: {id}\r\nX-Forwarded-For: 198.51.100.7\r\n{headers}");
        let answer = running.client(Some(key)).request(method, &format!("/api/v2/{target}"), &headers, *body);
        let line = lines_when(running, before + number + 1).pop().unwrap();
        let (phext, coordinate, bytes, status) = expected;
        let told = json!([line["phext"], line["coordinate"], line["bytes"], line["status"]]);
        assert_eq!(told, json!([phext, coordinate, bytes, status]), "{method} {target}: {answer}");
        assert_eq!(answer.status, *status, "{answer}");
        let command = target.split('?').next().unwrap();
        let who =
            json!([line["tenant"], line["key_id"], line["client"], line["request_id"], line["command"]]);
        assert_eq!(who, json!(["alice", key_id, "198.51.100.7", id, command]));
        let time: Vec<&str> = text(&line, "time").split(['T', '.']).collect();
        assert!(time.len() == 3 && time[2].len() == "123456Z".len(), "{line}");
    }
}

#[test]
fn each_spelling_of_each_command_has_a_line() {
    let running = Deployment::start(&setup("try"));
    let full = |at: &str| json!(format!("alice.{at}"));
    let cases: &[Case<'_>] = &[
        ("POST", format!("insert?p=a&{AT}"), "", Some(b"Hello"), (json!("a"), json!(FULL), json!(5), 200)),
        ("GET", format!("insert?p=a&{AT}&s=%C3%A4"), "", None, (json!("a"), json!(FULL), json!(2), 200)),
        ("POST", format!("delete?p=a&{AT}"), "", None, (json!("a"), json!(FULL), json!(7), 200)),
        (
            "GET",
            "update?c=alice.2.1.1;1.1.1;1.1.9&p=x%20y&s=".to_owned(),
            "",
            None,
            (json!("x y"), full("2.1.1/1.1.1/1.1.9"), json!(0), 200),
        ),
        (
            "POST",
            "update".to_owned(),
            FORM,
            Some(b"s=text&p=f+1&c=3.1.1/1.1.1/1.1.1"),
            (json!("f 1"), full("3.1.1/1.1.1/1.1.1"), json!(4), 200),
        ),
        (
            "POST",
            format!("update?{AT}"),
            FORM,
            Some(b"p=g&%70=h&s=1"),
            (json!("h"), json!(FULL), json!(1), 200),
        ),
        (
            "POST",
            format!("update?p=q&{AT}"),
            FORM,
            Some(b"p=b&c=4.1.1/1.1.1/1.1.1"),
            (json!("q"), json!(FULL), json!(23), 200),
        ),
    ];
    assert_lines(&running, &key_of("alice"), "k1", cases);
    // What the lines name is what was written.
    let client = running.client_of("alice");
    assert_eq!(client.get("/api/v2/select?p=f%201&c=3.1.1/1.1.1/1.1.1").ok(), "text");
    assert_eq!(client.get(&format!("/api/v2/select?p=h&{AT}")).ok(), "1");
    let mode = fs::metadata(running.join("audit.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn refused_write_has_a_line_without_invalid_names() {
    let limits = "body = \"1KiB\"".to_owned();
    let tenants = vec![Tenant::new("alice", 1341).with_key("reads-only", "read", None)];
    let running = Deployment::start(&Setup { limits, tenants, ..setup("try") });
    let (a, none) = (json!("a"), Value::Null);
    let forged = percent_encoded("a\n{\"tenant\":\"bob\"}");
    let quoted = percent_encoded("a\",\"tenant\":\"bob");
    let long = [b'x'; 2000];
    let of = |phext: &Value, coordinate: Value, status| (phext.clone(), coordinate, Value::Null, status);
    let whole = || json!(FULL);
    let cases: &[Case<'_>] = &[
        ("POST", "update?p=a&c=1.1".to_owned(), "", Some(b"x"), of(&a, none.clone(), 400)),
        ("POST", "update?p=a&c=bob.1.1.1/1.1.1/1.1.1".to_owned(), "", Some(b"x"), of(&a, none.clone(), 403)),
        ("POST", format!("update?p=..%2Fa&{AT}"), "", Some(b"x"), of(&none, whole(), 403)),
        ("POST", format!("update?p={forged}&{AT}"), "", Some(b"x"), of(&none, whole(), 400)),
        ("POST", format!("update?{AT}"), "", Some(b"x\x17"), of(&json!(""), whole(), 400)),
        ("POST", format!("update?p=a&{AT}"), "", Some(b"a\xff"), of(&a, whole(), 400)),
        ("POST", format!("update?p=a&{AT}&s=%ff"), "", None, of(&a, whole(), 400)),
        ("POST", format!("update?p=a&{AT}"), "", Some(&long), of(&a, whole(), 413)),
        ("DELETE", format!("delete?p=a&{AT}"), "", None, of(&a, whole(), 405)),
        ("POST", format!("update?p=a&{AT}"), "If-Match: \"none\"\r\n", Some(b"x"), of(&a, whole(), 412)),
        ("POST", format!("update?p=a&{AT}"), "Idempotency-Key:\r\n", Some(b"x"), of(&a, whole(), 400)),
        (
            "POST",
            format!("update?p={quoted}&{AT}"),
            "",
            Some(b"x"),
            (json!("a\",\"tenant\":\"bob"), whole(), json!(1), 200),
        ),
    ];
    assert_lines(&running, &key_of("alice"), "k1", cases);
    let refused: &[Case<'_>] = &[("POST", format!("update?p=a&{AT}"), "", Some(b"x"), of(&a, whole(), 403))];
    assert_lines(&running, "reads-only", "k2", refused);
}

#[test]
fn requests_that_are_not_authenticated_writes_have_no_line() {
    let tenants = vec![Tenant::new("alice", 1341), Tenant::new("bob", 1342).in_state("suspended")];
    let running = Deployment::start(&Setup { tenants, ..setup("require") });
    let update = format!("/api/v2/update?p=a&{AT}&s=x");
    running.client(Some("wrong")).get(&update).problem(401, "invalid_key");
    running.client(None).get(&update).problem(401, "missing_key");
    running.client_of("bob").get(&update).problem(403, "tenant_suspended");
    let alice = running.client_of("alice");
    for command in ["select", "toc", "get", "status", "load", "checksum", "json-export"] {
        alice.get(&format!("/api/v2/{command}?p=a&{AT}")).ok();
    }
    alice.get(&format!("/api/v2/updates?p=a&{AT}")).problem(404, "unknown_route");
    assert!(lines(&running).is_empty());
    alice.get(&update).ok();
    assert_eq!(lines(&running).len(), 1);
}

#[test]
fn invalid_request_id_is_not_logged() {
    let running = Deployment::start(&setup("require"));
    let headers = "X-Request-Id: x\",\"tenant\":\"bob\r\n";
    let answer =
        running.client_of("alice").request("POST", &format!("/api/v2/update?p=a&{AT}"), headers, Some(b"x"));
    answer.ok();
    let lines = lines(&running);
    assert_eq!(Some(text(&lines[0], "request_id")), answer.header("x-request-id"));
    assert_eq!(text(&lines[0], "tenant"), "alice");
}

#[test]
fn replay_is_marked_in_its_line() {
    let running = Deployment::start(&setup("require"));
    let client = running.client_of("alice");
    let send = |text: &str| {
        let target = format!("/api/v2/insert?p=a&{AT}");
        client.request("POST", &target, "Idempotency-Key: once\r\n", Some(text.as_bytes()))
    };
    assert_eq!((send("Hello").status, send("Hello").status, send("other").status), (200, 200, 422));
    let told: Vec<Value> =
        lines(&running).iter().map(|line| json!([line["bytes"], line["status"], line["replayed"]])).collect();
    assert_eq!(json!(told), json!([[5, 200, null], [5, 200, true], [null, 422, null]]));
}

#[test]
fn rate_limited_writes_have_no_line() {
    let limits = "per_tenant = \"3/h\"".to_owned();
    let running = Deployment::start(&Setup { limits, ..setup("require") });
    let client = running.client_of("alice");
    let update = client.head("GET", &format!("/api/v2/update?p=a&{AT}&s=x")) + "\r\n";
    client.get(&format!("/api/v2/update?p=a&{AT}&s=x")).ok();
    client.get("/api/v2/update?p=a&s=%ff").problem(400, "invalid_utf8");
    client.get("/api/v2/select").problem(400, "missing_parameter");
    let mut connection = client.connect();
    for _ in 0..1000 {
        connection.send(update.as_bytes());
        connection.answer().problem(429, "rate_limited_tenant");
    }
    drop(connection);
    let root = running.stop();
    let statuses: Vec<Value> =
        lines_in(&root.join("audit.log")).iter().map(|line| line["status"].clone()).collect();
    assert_eq!(json!(statuses), json!([200, 400]));
    let refused = root.read("up.log").matches("rate_limited_tenant").count();
    assert_eq!(refused, 1000, "in the access log");
}

/// Suspends alice's worker, so requests to it wait.
fn stop_worker(running: &Deployment) -> u32 {
    let worker = wait::until_some("alice's worker", || running.worker_of("alice"));
    process::signal(worker.pid, Signal::STOP);
    worker.pid
}

#[test]
fn write_without_a_response_has_a_line() {
    let timeouts = "answer = \"300ms\"".to_owned();
    let running = Deployment::start(&Setup { timeouts, ..setup("try") });
    let client = running.client_of("alice");
    let target = format!("/api/v2/update?p=a&{AT}");
    client.post(&target, "x").ok();
    let pid = stop_worker(&running);
    client
        .request("POST", "/api/v2/update", FORM, Some(b"p=f&c=1.1.1/1.1.1/1.1.1&s=x"))
        .problem(504, "worker_timeout");
    // The client disconnects in the middle of the body.
    let mut connection = client.connect();
    connection.send((client.head("POST", &target) + "Content-Length: 10\r\n\r\nhalf").as_bytes());
    drop(connection);
    let lines = lines_when(&running, 3);
    process::signal(pid, Signal::CONT);
    let told =
        lines.iter().map(|line| json!([line["phext"], line["coordinate"], line["bytes"], line["status"]]));
    let expected = json!([["a", FULL, 1, 200], ["f", FULL, null, 504], ["a", FULL, null, 0]]);
    assert_eq!(json!(told.collect::<Vec<_>>()), expected);
}

#[test]
fn repeated_write_has_one_line() {
    let long = vec![b'x'; 100_000];
    let form = b"p=f&c=1.1.1/1.1.1/1.1.1&s=again";
    for (query, body, bytes, status) in
        [("", &form[..], json!(5), 200), ("?p=f&c=1.1.1/1.1.1/1.1.1", &long, Value::Null, 502)]
    {
        let running = Deployment::start(&setup("require"));
        let client = running.client_of("alice");
        client.post(&format!("/api/v2/update?p=a&{AT}"), "x").ok();
        let pid = stop_worker(&running);
        let head = client.head("POST", &format!("/api/v2/update{query}")) + FORM;
        let mut connection = client.connect();
        connection.send((head + &format!("Content-Length: {}\r\n\r\n", body.len())).as_bytes());
        connection.send(body);
        wait::until("the request at the worker", || {
            let at = |port| std::net::SocketAddrV4::new(running.address, port);
            process::unread_bytes(at(1341)) > 0 && process::unread_bytes(at(running.listen.port())) == 0
        });
        process::signal(pid, Signal::KILL);
        assert_eq!(connection.answer().status, status);
        let told = lines(&running);
        let told = told.iter().map(|line| json!([line["phext"], line["bytes"], line["status"]]));
        assert_eq!(json!(told.collect::<Vec<_>>()), json!([["a", 1, 200], ["f", bytes, status]]));
    }
}

#[test]
fn audit_off_creates_no_file() {
    let running = Deployment::start(&setup("off"));
    running.client_of("alice").post(&format!("/api/v2/update?p=a&{AT}"), "x").ok();
    let root = running.stop();
    assert!(!root.join("audit.log").exists());
}
