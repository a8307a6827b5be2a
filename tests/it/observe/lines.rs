//! The lines that gateway and worker write of one request: its id and its trace lead from the one to the other, and
//! they tell where its time went.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::fake_worker::{FakeSystem, SERVED};
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::wait;

use super::{SELECT, UPDATE};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// A system that logs everything.
fn deployment(format: &str) -> Deployment {
    let root = Root::new(&Setup { limits: "body = \"1KiB\"".to_owned(), ..Setup::default() });
    let folder = root.path().to_str().unwrap().to_owned();
    let mut command = root.gateway_command(&["--log-format", format, "up", "--root", &folder]);
    command.env("RUST_LOG", "info,access=debug");
    Deployment::spawn(root, &mut command)
}

fn id_of(answer: &Answer) -> &str {
    answer.header("x-request-id").unwrap()
}

fn lines_of_target(running: &Deployment, target: &str, id: &str) -> Vec<Value> {
    let log = running.log();
    let with_id = log.lines().filter(|line| line.contains(id));
    let parsed = with_id.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["target"] == target).collect()
}

/// The access lines with this id; the worker's have a field that the gateway's have not.
fn lines(running: &Deployment, id: &str, of_worker: bool) -> Vec<Value> {
    let mut lines = lines_of_target(running, "access", id);
    lines.retain(|line| line.get("command").is_some() == of_worker);
    lines
}

fn gateway_line(running: &Deployment, id: &str) -> Value {
    wait::until_some("the gateway's line", || lines(running, id, false).pop())
}

#[test]
fn a_line_tells_the_workers_time_from_the_gateways() {
    let running = deployment("json");
    let alice = running.client_of("alice");
    for answer in [alice.post(UPDATE, "x"), alice.get(SELECT), alice.get("/api/v2/select")] {
        let line = gateway_line(&running, id_of(&answer));
        let us = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("no {name}: {line}"));
        assert!(0 < us("worker_us") && us("worker_us") < us("duration_us"), "{line}");
        assert_eq!(line["status"], answer.status, "{line}");
    }
    let without = [
        alice.get("/api/v2/nothing"),
        alice.post(UPDATE, [b'x'; 1025]),
        running.client(None).get("/health"),
        running.client(None).get(SELECT),
        running.client(None).raw("nonsense\r\n\r\n"),
    ];
    for answer in without {
        let line = gateway_line(&running, id_of(&answer));
        assert!(line["duration_us"].is_u64() && line.get("worker_us").is_none(), "{line}");
        assert!(line.get("trace_id").is_none(), "{line}");
        assert_eq!(line["status"], answer.status, "{line}");
    }
}

#[test]
fn lines_of_text_have_both_times_too() {
    let running = deployment("text");
    let answer = running.client_of("alice").get(SELECT);
    let line = wait::until_some("the gateway's line", || {
        let log = running.log();
        let line = log.lines().find(|line| line.contains(id_of(&answer)) && line.contains("method="));
        line.map(str::to_owned)
    });
    let us = |name: &str| {
        let value = line.split(' ').find_map(|field| field.strip_prefix(&format!("{name}=")));
        value.and_then(|value| value.parse::<u64>().ok()).unwrap_or_else(|| panic!("no {name}: {line}"))
    };
    assert!(0 < us("worker_us") && us("worker_us") < us("duration_us"), "{line}");
}

#[test]
fn what_the_operator_changes_and_who_is_refused_leave_a_line() {
    let running = deployment("json");
    let (admin, stranger) = (running.admin(), running.admin_with(Some("guess")));
    let suspend = Some(b"{\"state\": \"suspended\"}".as_slice());
    let watched = admin.get("/admin/tenants/alice");
    for (answer, method, code) in [
        (admin.request("PATCH", "/admin/tenants/alice", "", suspend), "PATCH", ""),
        (stranger.request("PATCH", "/admin/tenants/alice?key=secret", "", suspend), "PATCH", "invalid_key"),
        (stranger.get("/admin/tenants/alice"), "GET", "invalid_key"),
    ] {
        let id = id_of(&answer);
        let line = wait::until_some("the operator's line", || lines_of_target(&running, "admin", id).pop());
        assert_eq!(
            (&line["method"], &line["path"]),
            (&method.into(), &"/admin/tenants/alice".into()),
            "{line}"
        );
        assert_eq!((&line["status"], &line["code"]), (&answer.status.into(), &code.into()), "{line}");
        assert!(line["client"].as_str().unwrap().starts_with("127."), "{line}");
    }
    let reloaded = "\"added\":\"\",\"removed\":\"\",\"changed\":\"alice\"";
    wait::until("the line of the reload", || running.log().contains(reloaded));
    assert!(!running.log().contains(id_of(&watched)), "who only looks leaves none");
}

#[test]
fn a_request_is_found_again_in_its_workers_log() {
    let running = deployment("json");
    let alice = running.client_of("alice");
    let own = "0192f0c1-2345-7abc-8def-0123456789ab";
    let fields = format!("X-Request-Id: {own}\r\ntraceparent: {PARENT}\r\n");
    let served = alice.request("POST", UPDATE, &fields, Some(b"x"));
    assert_eq!((served.ok(), id_of(&served)), ("Updated 1 bytes", own));
    let refused = alice.get("/api/v2/select?p=text&c=0");
    for (answer, command, trace_id) in
        [(&served, "update", Value::from(TRACE_ID)), (&refused, "select", Value::Null)]
    {
        let id = id_of(answer);
        let line = wait::until_some("the worker's line", || lines(&running, id, true).pop());
        assert_eq!((&line["command"], &line["tenant"]), (&command.into(), &"alice".into()), "{line}");
        assert_eq!((&line["status"], &line["trace_id"]), (&answer.status.into(), &trace_id), "{line}");
        assert!(line["duration_us"].is_u64(), "{line}");
        assert_eq!(gateway_line(&running, id)["trace_id"], trace_id);
    }
}

#[test]
fn what_a_worker_complains_of_names_the_request() {
    let running = deployment("json");
    let alice = running.client_of("alice");
    alice.post(UPDATE, "x").ok();
    // A worker has no right to a file that is closed to its owner.
    let closed = running.join("data/alice/broken.phext");
    fs::write(&closed, "x").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
    let answer = alice.get("/api/v2/select?p=broken&c=1.1.1/1.1.1/1.1.1");
    answer.refused(503, "worker_unavailable");
    let complaint = running
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["level"] == "ERROR" && line["request_id"] == id_of(&answer));
    assert!(complaint.is_some(), "{}", running.log());
}

/// What a worker gets of these lines.
fn forwarded(lines: &str) -> (Vec<String>, Vec<String>) {
    let root = Root::new(&Setup::default());
    let (heads, answer) = FakeSystem::new(&root).exchange(lines, None, &[Some(SERVED)]);
    answer.ok();
    let values = |name: &str| heads[0].values(name).into_iter().map(str::to_owned).collect();
    (values("traceparent"), values("tracestate"))
}

#[test]
fn a_trace_goes_on_to_the_worker() {
    let (parents, states) =
        forwarded(&format!("TraceParent: {PARENT}\r\ntracestate: a=1\r\nTRACESTATE: b=2\r\n"));
    assert_eq!((parents, states), (vec![PARENT.to_owned()], vec!["a=1,b=2".to_owned()]));
    let too_long = format!("traceparent: {PARENT}\r\ntracestate: a={}\r\n", "x".repeat(511));
    assert_eq!(forwarded(&too_long), (vec![PARENT.to_owned()], Vec::new()));
}

#[test]
fn a_trace_that_is_none_is_dropped_and_no_error() {
    let none = (Vec::new(), Vec::new());
    assert_eq!(forwarded("tracestate: a=1\r\n"), none);
    assert_eq!(forwarded(&format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n")), none);
    let running = deployment("json");
    let alice: Client = running.client_of("alice");
    for bad in ["", "00", "ä", &PARENT.to_uppercase(), &PARENT.replace("00-4", "ff-4"), &"9".repeat(9000)] {
        let fields = format!("traceparent: {bad}\r\ntracestate: a=1\r\n");
        let answer = alice.request("GET", SELECT, &fields, None);
        answer.ok();
        assert!(gateway_line(&running, id_of(&answer)).get("trace_id").is_none(), "{bad:?}");
    }
}
