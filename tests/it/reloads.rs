//! A reload of the registry or the config resets no rate limit: what an address or a tenant has used still counts,
//! and so do requests in flight.

use rustix::process::Signal;
use sq_tests::answer::Answer;
use sq_tests::client::{Client, Connection};
use sq_tests::deployment::Deployment;
use sq_tests::scrape;
use sq_tests::setup::Setup;
use sq_tests::target::{SELECT, UPDATE};
use sq_tests::wait;

fn remaining(answer: &Answer, name: &str) -> u32 {
    let field = answer.header("ratelimit").unwrap_or_else(|| panic!("no RateLimit: {answer}"));
    let state = field.split(", ").find_map(|member| member.strip_prefix(&format!("\"{name}\";r=")));
    state
        .and_then(|state| state.split(';').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no {name}: {field}"))
}

/// Runs something that makes the gateway reload, and waits for that. Another reload may already be running; one
/// requested afterwards, by a signal, is certain to see the change.
fn reload(running: &Deployment, cause: impl FnOnce()) {
    let reloads = || scrape::reloads(running, "accepted") + scrape::reloads(running, "rejected");
    let before = reloads();
    cause();
    wait::until("the reload", || reloads() > before);
    let by_signal = || {
        let log = running.log();
        log.lines().filter(|line| line.contains("directory::reload") && line.contains("Hangup")).count()
    };
    let before = by_signal();
    running.signal(Signal::HUP);
    wait::until("the reload by a signal", || by_signal() > before);
}

fn edit_config(running: &Deployment, old: &str, new: &str) {
    let config = running.read("gateway.toml");
    assert!(config.contains(old), "{config}");
    reload(running, || running.write("gateway.toml", &config.replace(old, new)));
}

/// All ways to reload; none changes a rate.
fn reload_in_every_way(running: &Deployment) {
    reload(running, || {
        running.with_config(&["tenants", "add-key", "bob"]).success();
    });
    reload(running, || running.write_registry(&running.read("tenants.toml")));
    reload(running, || running.write("gateway.toml", &(running.read("gateway.toml") + "# Touched.\n")));
    reload(running, || running.signal(Signal::HUP));
    // A config with a mistake changes nothing.
    let registry = running.read("tenants.toml");
    reload(running, || running.write_registry("[[tenant]]\nname = 1\n"));
    reload(running, || running.write_registry(&registry));
}

#[test]
fn rates_of_addresses_and_tenants_count_on() {
    let limits = "per_ip = \"6/day\"\nper_tenant = \"5/day\"\nfailed_keys = \"2/day\"";
    let running = Deployment::start(&Setup { limits: limits.to_owned(), ..Setup::default() });
    let alice = running.client_of("alice");
    (0..2).for_each(|_| assert_eq!(alice.get(SELECT).ok(), ""));
    let answer = alice.get(SELECT);
    assert_eq!((remaining(&answer, "ip"), remaining(&answer, "tenant")), (3, 2));
    running.client(Some("guess")).get(SELECT).problem(401, "invalid_key");
    reload_in_every_way(&running);
    let answer = alice.get(SELECT);
    assert_eq!((remaining(&answer, "ip"), remaining(&answer, "tenant")), (1, 1));
    running.client(Some("guess")).get(SELECT).problem(401, "invalid_key");
    alice.get(SELECT).problem(429, "rate_limited_ip");
    let elsewhere = |client: &Client| client.request("GET", SELECT, "X-Forwarded-For: 203.0.113.1\r\n", None);
    elsewhere(&alice).ok();
    elsewhere(&alice).problem(429, "rate_limited_tenant");
    reload_in_every_way(&running);
    alice.get(SELECT).problem(429, "rate_limited_ip");
    elsewhere(&alice).problem(429, "rate_limited_tenant");
    // Of two limits, the one that changes is reset, and the other is not.
    edit_config(&running, "per_ip = \"6/day\"", "per_ip = \"7/day\"");
    assert_eq!(remaining(&alice.get(SELECT), "ip"), 6);
    alice.get(SELECT).problem(429, "rate_limited_tenant");
}

#[test]
fn reload_keeps_the_count_of_wrong_keys() {
    let running =
        Deployment::start(&Setup { limits: "failed_keys = \"2/day\"".to_owned(), ..Setup::default() });
    let guess = || running.client(Some("guess")).get(SELECT);
    guess().problem(401, "invalid_key");
    reload_in_every_way(&running);
    guess().problem(401, "invalid_key");
    guess().problem(429, "too_many_failed_keys");
    reload_in_every_way(&running);
    guess().problem(429, "too_many_failed_keys");
}

/// Starts an upload that is in flight when this returns, unless it is refused.
fn begin_upload(client: &Client) -> Result<Connection, Answer> {
    let mut upload = client.connect();
    upload
        .send((client.head("POST", UPDATE) + "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n").as_bytes());
    let answer = upload.answer();
    if answer.status == 100 { Ok(upload) } else { Err(answer) }
}

#[test]
fn requests_in_flight_count_whatever_the_new_limit_is() {
    let limits = "per_tenant = \"100/day\"\nin_flight = 2";
    let running = Deployment::start(&Setup { limits: limits.to_owned(), ..Setup::default() });
    let client = running.client_of("alice");
    let refused = || begin_upload(&client).expect_err("too many at once");
    let mut uploads = vec![begin_upload(&client).unwrap(), begin_upload(&client).unwrap()];
    refused().problem(429, "too_many_in_flight");
    reload_in_every_way(&running);
    refused().problem(429, "too_many_in_flight");

    edit_config(&running, "in_flight = 2", "in_flight = 3");
    uploads.push(begin_upload(&client).unwrap());
    refused().problem(429, "too_many_in_flight");
    edit_config(&running, "in_flight = 3", "in_flight = \"off\"");
    uploads.push(begin_upload(&client).unwrap());
    edit_config(&running, "in_flight = \"off\"", "in_flight = 1");
    let answer = refused();
    answer.problem(429, "too_many_in_flight");
    assert_eq!(remaining(&answer, "tenant"), 100 - 8, "the rate began anew with the other limit");

    for upload in &mut uploads {
        refused().problem(429, "too_many_in_flight");
        upload.send(b"abc");
        assert_eq!(upload.answer().ok(), "Updated 3 bytes");
    }
    wait::until("room for the next request", || client.get(SELECT).status == 200);
    let only = begin_upload(&client).unwrap();
    refused().problem(429, "too_many_in_flight");
    drop(only);
    wait::until("room again", || client.get(SELECT).status == 200);
}

/// The slots are those of the start; the next start would refuse this config.
#[test]
fn a_config_that_could_not_start_is_rejected() {
    let running = Deployment::start(&Setup::default());
    let config = running.read("gateway.toml");
    running.write("gateway.toml", &config.replace("[gateway]\n", "[gateway]\nslots = \"1341-1341\"\n"));
    let answer = running.admin().request("POST", "/admin/reload", "", Some(b""));
    answer.problem(422, "invalid_files");
    assert!(answer.text().contains("port 1342 is outside the slots"), "{answer}");
    wait::until("the pool's word", || running.log().contains("reload rejected"));
    running.client_of("bob").get(SELECT).ok();
}
