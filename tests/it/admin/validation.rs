//! Errors name what is wrong with a request: the field, or the line and the column.

use serde_json::{Value, json};
use sq_tests::deployment::Deployment;
use sq_tests::setup::Setup;

use super::{Api, start};

const ADD: &str = "/admin/tenants/add";
const ALICE: &str = "/admin/tenants/alice";
const KEYS: &str = "/admin/tenants/alice/keys";

#[test]
fn each_mistake_names_its_field() {
    let setup = Setup { plans: "[plan.gold]\nquota = \"3MiB\"\n".to_owned(), ..Setup::default() };
    let running = Deployment::start(&setup);
    let api = Api::of(&running);
    let before = running.read("tenants.toml");
    let long = format!(r#"{{"name": "{}"}}"#, "n".repeat(64));
    for (method, target, body, field) in [
        ("POST", ADD, r#"{"name": "Carol"}"#, "name"),
        ("POST", ADD, r#"{"name": ""}"#, "name"),
        ("POST", ADD, r#"{"name": 5}"#, "name"),
        ("POST", ADD, r#"{"name": ["carol"]}"#, "name"),
        ("POST", ADD, &long, "name"),
        ("POST", ADD, r#"{"name": "carol", "plan": "lead"}"#, "plan"),
        ("POST", ADD, r#"{"name": "carol", "plan": ""}"#, "plan"),
        ("POST", ADD, r#"{"name": "carol", "plan": 1}"#, "plan"),
        ("POST", ADD, r#"{"name": "carol", "quota_mb": 0}"#, "quota_mb"),
        ("POST", ADD, r#"{"name": "carol", "quota_mb": -1}"#, "quota_mb"),
        ("POST", ADD, r#"{"name": "carol", "quota_mb": 1.5}"#, "quota_mb"),
        ("POST", ADD, r#"{"name": "carol", "quota_mb": "5"}"#, "quota_mb"),
        ("POST", ADD, r#"{"name": "carol", "quota_mb": 1073741825}"#, "quota_mb"),
        ("POST", ADD, r#"{"name": "carol", "quota_mb": 18446744073709551615}"#, "quota_mb"),
        ("POST", ADD, r#"{"name": "carol", "quota_mb": 99999999999999999999999}"#, "quota_mb"),
        ("POST", ADD, r#"{"name": "carol", "surname": "x"}"#, "surname"),
        ("PATCH", ALICE, r#"{"state": "asleep"}"#, "state"),
        ("PATCH", ALICE, r#"{"state": null}"#, "state"),
        ("PATCH", ALICE, r#"{"state": "Active"}"#, "state"),
        ("PATCH", ALICE, r#"{"plan": "lead"}"#, "plan"),
        ("PATCH", ALICE, r#"{"quota_mb": 0}"#, "quota_mb"),
        ("PATCH", ALICE, r#"{"name": "carol"}"#, "name"),
        ("POST", KEYS, r#"{"scope": "admin"}"#, "scope"),
        ("POST", KEYS, r#"{"expires": "tomorrow"}"#, "expires"),
        ("POST", KEYS, r#"{"expires": 5}"#, "expires"),
        ("POST", KEYS, r#"{"expires": "2020-01-01T00:00:00Z"}"#, "expires"),
        ("POST", KEYS, r#"{"grace_s": 5}"#, "grace_s"),
        ("POST", KEYS, r#"{"replaces": "k1", "grace_s": -5}"#, "grace_s"),
        ("POST", KEYS, r#"{"replaces": "k1", "grace_s": 18446744073709551615}"#, "grace_s"),
        ("POST", KEYS, r#"{"replaces": "k1", "scope": "read"}"#, "scope"),
        ("POST", KEYS, r#"{"replaces": "k1", "expires": "2099-01-01T00:00:00Z"}"#, "expires"),
        ("DELETE", "/admin/tenants/alice?purge=yes", "", "purge"),
        ("DELETE", "/admin/tenants/alice?purge=true&purge=false", "", "purge"),
    ] {
        let problem = api.call(method, target, Some(body)).problem(400, "invalid_parameter");
        assert_eq!(problem["field"], json!(field), "{method} {target} {body}: {problem}");
        let detail = problem["detail"].as_str().unwrap().to_lowercase();
        assert!(detail.starts_with(field), "{body}: {detail}");
    }
    for (method, target, body, field) in [
        ("POST", ADD, "{}", "name"),
        ("POST", ADD, r#"{"plan": "gold"}"#, "name"),
        ("PATCH", ALICE, "{}", "state"),
    ] {
        let problem = api.call(method, target, Some(body)).problem(400, "missing_parameter");
        assert_eq!(problem["field"], json!(field), "{problem}");
    }
    assert_eq!(running.read("tenants.toml"), before, "a refused request wrote something");
}

#[test]
fn values_at_the_limits_are_accepted() {
    let (_running, api) = start();
    let longest = format!("n{}", "9".repeat(62));
    api.add(&longest);
    assert_eq!(api.get(&format!("/admin/tenants/{longest}"))["name"], json!(longest));
    api.created(ADD, r#"{"name": "large", "quota_mb": 1073741824, "plan": null}"#);
    assert_eq!(api.get("/admin/tenants/large")["quota_bytes"], json!(1_u64 << 50));
    api.created(ADD, r#"{"quota_mb": 1, "name": "small"}"#);
    assert_eq!(api.get("/admin/tenants/small")["quota_bytes"], json!(1 << 20));
}

#[test]
fn invalid_json_is_reported_with_its_position() {
    let (running, api) = start();
    for (body, line, column) in [
        ("{", 1, 1),
        ("{\"name\": \"carol\",\n}", 2, 1),
        ("{\"name\": \"carol\"} x", 1, 19),
        ("{'name': 1}", 1, 2),
    ] {
        let problem = api.call("POST", ADD, Some(body)).problem(400, "bad_request");
        assert_eq!(
            (&problem["line"], &problem["column"]),
            (&json!(line), &json!(column)),
            "{body}: {problem}"
        );
    }
    for body in ["[]", "[\"carol\"]", "\"carol\"", "null", "5", "name=carol"] {
        api.call("POST", ADD, Some(body)).problem(400, "bad_request");
    }
    let answer = running.admin().post(ADD, b"{\"name\": \"\xff\"}");
    let problem = answer.problem(400, "invalid_utf8");
    assert_eq!((&problem["part"], &problem["offset"]), (&json!("body"), &json!(10)));
    let deep = "{\"name\": ".to_owned() + &"[".repeat(8000);
    let refused = api.call("POST", ADD, Some(&deep));
    assert_eq!(refused.status, 400, "{refused}");
    assert_eq!(api.names(), ["alice", "bob"]);
}

#[test]
fn content_type_of_the_body_does_not_matter() {
    let (running, _) = start();
    for (name, kind) in
        [("one", "application/x-www-form-urlencoded"), ("two", "text/plain"), ("three", "application/json")]
    {
        let (line, body) = (format!("Content-Type: {kind}\r\n"), format!("{{\"name\": \"{name}\"}}"));
        let answer = running.admin().request("POST", ADD, &line, Some(body.as_bytes()));
        assert_eq!(answer.status, 201, "{answer}");
    }
}

#[test]
fn unknown_routes_and_methods_are_refused() {
    let (running, api) = start();
    for target in ["/nothing", "/admin", "/admin/", "/admin/tenants/", "/admin/tenants/alice/nothing", "/%ff"]
    {
        running.admin().get(target).problem(404, "unknown_route");
    }
    for target in
        ["/admin/tenants/Alice", "/admin/tenants/%ff", "/admin/tenants/..%2f", "/admin/tenants/nobody"]
    {
        api.call("GET", target, None).problem(404, "unknown_tenant");
    }
    for (method, target, allowed) in [
        ("DELETE", "/health", "GET,HEAD"),
        ("POST", "/metrics", "GET,HEAD"),
        ("PUT", "/admin/tenants", "GET,HEAD"),
        ("PUT", ALICE, "DELETE,GET,HEAD,PATCH"),
        ("GET", KEYS, "POST"),
        ("GET", "/admin/reload", "POST"),
        ("OPTIONS", "/admin/tenants", "GET,HEAD"),
    ] {
        let answer = running.admin().request(method, target, "", None);
        let problem = answer.problem(405, "method_not_allowed");
        let mut methods: Vec<&str> = answer.header("allow").unwrap().split(',').map(str::trim).collect();
        methods.sort_unstable();
        assert_eq!(methods.join(","), allowed, "{method} {target}: {problem}");
        assert_ne!(problem["detail"], Value::Null);
    }
}
