//! The listener's own limits.

use std::time::Duration;

use super::start;

const ADD: &str = "/admin/tenants/add";

/// The longest body, as gateway/src/admin/body.rs has it.
const BODY_BYTES: usize = 16 << 10;

#[test]
fn a_body_has_a_limit() {
    let (running, api) = start();
    let padded = |length: usize| {
        let object = r#"{"name": "carol"}"#;
        object.to_owned() + &" ".repeat(length - object.len())
    };
    let problem = api.call("POST", ADD, Some(&padded(BODY_BYTES + 1))).problem(413, "body_too_large");
    assert_eq!(problem["limit"], serde_json::json!(BODY_BYTES));
    // Even one that would be cut off while it is sent reads why.
    api.call("POST", ADD, Some(&padded(3 << 20))).problem(413, "body_too_large");
    let pieces = [padded(BODY_BYTES), " ".to_owned()];
    let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
    running.admin().post_chunks(ADD, &pieces).problem(413, "body_too_large");
    assert_eq!(api.names(), ["alice", "bob"]);
    api.created(ADD, &padded(BODY_BYTES));
}

#[test]
fn a_slow_body_and_a_slow_head_are_cut_off() {
    let (_running, api) = start();
    let mut head = api.client.connect();
    head.send(b"GET /health HTTP/1.1\r\nHost: loc");
    let mut body = api.client.connect();
    body.send((api.client.head("POST", ADD) + "Content-Length: 17\r\n\r\n{\"name\": ").as_bytes());
    body.answer().problem(408, "request_timeout");
    assert!(head.hears_within(Duration::from_secs(15)), "an unfinished head is waited for for ever");
    assert_eq!(api.names(), ["alice", "bob"]);
}

#[test]
fn a_crowd_of_idle_connections_is_bounded_and_makes_room() {
    let (_running, api) = start();
    let idle: Vec<_> = (0..80).map(|_| api.client.connect()).collect();
    // More than there are places for: those that were silent longest have lost theirs.
    assert_eq!(api.names(), ["alice", "bob"]);
    drop(idle);
}

#[test]
fn one_connection_is_one_request() {
    let (_running, api) = start();
    let mut connection = api.client.connect();
    connection.send((api.client.head("GET", "/health") + "\r\n").as_bytes());
    connection.answer().ok();
    connection.assert_closed();
}
