//! The listener's own limits.

use std::time::Duration;

use super::start;

const ADD: &str = "/admin/tenants/add";

/// The longest body, as in gateway/src/admin/body.rs.
const BODY_BYTES: usize = 16 << 10;

#[test]
fn body_size_is_limited() {
    let (running, api) = start();
    let padded = |length: usize| {
        let object = r#"{"name": "carol"}"#;
        object.to_owned() + &" ".repeat(length - object.len())
    };
    let problem = api.call("POST", ADD, Some(&padded(BODY_BYTES + 1))).problem(413, "body_too_large");
    assert_eq!(problem["limit"], serde_json::json!(BODY_BYTES));
    // A client that is still sending can read the response.
    api.call("POST", ADD, Some(&padded(3 << 20))).problem(413, "body_too_large");
    let pieces = [padded(BODY_BYTES), " ".to_owned()];
    let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
    running.admin().post_chunks(ADD, &pieces).problem(413, "body_too_large");
    assert_eq!(api.names(), ["alice", "bob"]);
    api.created(ADD, &padded(BODY_BYTES));
}

#[test]
fn slow_body_and_slow_head_time_out() {
    let (_running, api) = start();
    let mut head = api.client.connect();
    head.send(b"GET /health HTTP/1.1\r\nHost: loc");
    let mut body = api.client.connect();
    body.send((api.client.head("POST", ADD) + "Content-Length: 17\r\n\r\n{\"name\": ").as_bytes());
    body.answer().problem(408, "request_timeout");
    assert!(head.hears_within(Duration::from_secs(15)), "an unfinished head does not time out");
    assert_eq!(api.names(), ["alice", "bob"]);
}

#[test]
fn idle_connections_are_bounded_and_make_way() {
    let (_running, api) = start();
    let idle: Vec<_> = (0..80).map(|_| api.client.connect()).collect();
    // More connections than the limit: those that were idle longest have been closed.
    assert_eq!(api.names(), ["alice", "bob"]);
    drop(idle);
}

#[test]
fn connection_serves_one_request() {
    let (_running, api) = start();
    let mut connection = api.client.connect();
    connection.send((api.client.head("GET", "/health") + "\r\n").as_bytes());
    connection.answer().ok();
    connection.assert_closed();
}
