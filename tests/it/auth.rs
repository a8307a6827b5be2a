//! Keys in every header field that may have them, and in every way in which they may be wrong.

use sq_tests::answer::Answer;
use sq_tests::deployment::Deployment;
use sq_tests::setup::{Setup, Tenant, key_of};

const READ_KEY: &str = "alice-reads-only";
const EXPIRED_KEY: &str = "alice-of-yesterday";
const WRITE: &str = "/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1&s=x";
const READ: &str = "/api/v2/select?p=notes&c=1.1.1/1.1.1/1.1.1";

fn deployment() -> Deployment {
    let alice = Tenant::new("alice", 1341).with_key(READ_KEY, "read", Some("2999-01-01T00:00:00Z")).with_key(
        EXPIRED_KEY,
        "write",
        Some("2020-01-01T00:00:00Z"),
    );
    let tenants = vec![
        alice,
        Tenant::new("bob", 1342),
        Tenant::new("sue", 1343).in_state("suspended"),
        Tenant::new("rex", 1344).in_state("reserved"),
    ];
    Deployment::start(&Setup { tenants, ..Setup::default() })
}

/// Sends a write with these header lines, without the client's own key.
fn with_headers(running: &Deployment, lines: &[&str]) -> Answer {
    let headers: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    running.client(None).request("POST", WRITE, &headers, Some(b"by alice"))
}

#[test]
fn key_is_accepted_in_each_header_field() {
    let running = deployment();
    let key = key_of("alice");
    let bearer = format!("Authorization: Bearer {key}");
    let places = [
        vec![bearer.clone()],
        vec![format!("authorization: bearer {key}")],
        vec![format!("Authorization: {key}")],
        vec![format!("X-SQ-API-Key: {key}")],
        vec![format!("x-sq-api-key: {key}")],
        vec![bearer.clone(), format!("X-SQ-API-Key: {key}")],
        vec![format!("Authorization: {key}"), format!("X-SQ-API-Key: {key}")],
    ];
    for place in places {
        let lines: Vec<&str> = place.iter().map(String::as_str).collect();
        let answer = with_headers(&running, &lines);
        assert_eq!(answer.ok(), "Updated 8 bytes", "{lines:?}");
        answer.assert_common_headers();
    }
    assert_eq!(running.client_of("bob").get(READ).ok(), "");
}

#[test]
fn two_different_keys_are_refused() {
    let running = deployment();
    let (alice, bob) = (key_of("alice"), key_of("bob"));
    let pairs = [
        [format!("Authorization: Bearer {alice}"), format!("X-SQ-API-Key: {bob}")],
        [format!("Authorization: Bearer {alice}"), format!("Authorization: Bearer {bob}")],
        [format!("X-SQ-API-Key: {bob}"), format!("X-SQ-API-Key: {alice}")],
    ];
    for pair in pairs {
        with_headers(&running, &[&pair[0], &pair[1]]).problem(400, "bad_request");
    }
    assert_nothing_stored_and_served(&running);
}

#[test]
fn requests_without_a_valid_key_have_no_effect() {
    let running = deployment();
    let missing = with_headers(&running, &[]);
    missing.problem(401, "missing_key");
    assert_eq!(
        missing.header("www-authenticate"),
        Some("Bearer realm=\"sq\""),
        "RFC 6750: no error without a key"
    );

    let valid = key_of("alice");
    let upper = valid.to_uppercase();
    for wrong in ["pmb-v1-nobody", &valid[1..], &valid[..valid.len() - 1], &upper, "k\u{e4}y", "two words"] {
        let answer = with_headers(&running, &[&format!("Authorization: Bearer {wrong}")]);
        answer.problem(401, "invalid_key");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
        assert!(!answer.text().contains(wrong), "the key comes back: {answer}");
    }
    for empty in ["Authorization: Bearer ", "Authorization:", "X-SQ-API-Key: "] {
        assert_eq!(with_headers(&running, &[empty]).status, 401, "{empty}");
    }
    let basic = with_headers(&running, &["Authorization: Basic YWxpY2U6a2V5"]);
    basic.problem(401, "invalid_key");
    let expired = with_headers(&running, &[&format!("Authorization: Bearer {EXPIRED_KEY}")]);
    expired.problem(401, "expired_key");
    assert!(expired.header("www-authenticate").unwrap().contains("error=\"invalid_token\""), "{expired}");
    assert_nothing_stored_and_served(&running);
}

#[test]
fn a_tenant_that_is_not_active_is_not_served() {
    let running = deployment();
    for target in [WRITE, READ, "/api/v2/version", "/api/v2/phexts"] {
        running.client_of("sue").get(target).problem(403, "tenant_suspended");
        running.client_of("rex").get(target).problem(403, "tenant_reserved");
    }
    assert_nothing_stored_and_served(&running);
}

#[test]
fn a_read_only_key_reads_and_does_not_write() {
    let running = deployment();
    running.client_of("alice").get("/api/v2/update?p=notes&c=1.1.1/1.1.1/1.1.1&s=kept").ok();
    let stored = running.stored();
    let reader = running.client(Some(READ_KEY));
    for command in ["insert", "update", "delete"] {
        let target = format!("/api/v2/{command}?p=notes&c=1.1.1/1.1.1/1.1.1&s=x");
        reader.get(&target).problem(403, "read_only_key");
        reader.post(&target, "x").problem(403, "read_only_key");
    }
    assert_eq!(running.stored(), stored);
    assert_eq!(reader.get(READ).ok(), "kept");
    for read in ["toc", "get", "checksum", "status", "delta", "load", "json-export"] {
        reader.get(&format!("/api/v2/{read}?p=notes")).ok();
    }
    reader.post("/api/v2/delta?p=notes", "").ok();
    reader.post("/api/v2/where?limit=10", "text").ok();
}

#[test]
fn the_worker_checks_the_key_again() {
    let running = deployment();
    running.client_of("alice").get(WRITE).ok();
    let stored = running.stored();
    assert_eq!(running.slot(1341, Some(&key_of("alice"))).get(READ).ok(), "x");
    running.slot(1341, None).get(READ).refused(401, "missing_key");
    let others = [key_of("bob"), "pmb-v1-nobody".to_owned()];
    for key in others {
        running.slot(1341, Some(&key)).get(READ).refused(401, "invalid_key");
        running
            .slot(1341, Some(&key))
            .get("/api/v2/delete?p=notes&c=1.1.1/1.1.1/1.1.1")
            .refused(401, "invalid_key");
    }
    running.slot(1341, Some(READ_KEY)).get(WRITE).refused(403, "read_only_key");
    assert_eq!(running.stored(), stored);
}

fn assert_nothing_stored_and_served(running: &Deployment) {
    assert_eq!(running.stored().into_keys().collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
    assert_eq!(running.client_of("alice").get(WRITE).ok(), "Updated 1 bytes");
    assert_eq!(running.client_of("alice").get(READ).ok(), "x");
}
