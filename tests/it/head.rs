//! HEAD returns the head of the GET, without the body, for everything that only reads.

use std::net::SocketAddr;

use sq_shared::route::Route;
use sq_tests::address;
use sq_tests::answer::Answer;
use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::lone_worker::LoneWorker;
use sq_tests::setup::{Setup, key_of};

const QUERY: &str = "p=text&c=1.1.1/1.1.1/1.1.1&from=1.1.1/1.1.1/1.1.1&to=9.9.9/9.9.9/9.9.9";

/// Fields that differ between responses, or that only a body has.
const OF_THE_MOMENT: [&str; 4] = ["date", "x-request-id", "ratelimit", "transfer-encoding"];

fn fields(answer: &Answer) -> Vec<(String, String)> {
    let is_kept = |name: &str| !OF_THE_MOMENT.contains(&name.to_ascii_lowercase().as_str());
    let mut fields: Vec<_> = answer.headers.iter().filter(|(name, _)| is_kept(name)).cloned().collect();
    fields.sort();
    fields
}

/// Sends HEAD and GET twice each on one connection: no response leaves bytes behind.
fn assert_same_head(client: &Client, target: &str, what: &str) {
    let mut connection = client.connect();
    let mut ask = |method: &str| {
        connection.send((client.head(method, target) + "\r\n").as_bytes());
        connection.answer_to(method)
    };
    for _ in 0..2 {
        let (head, get) = (ask("HEAD"), ask("GET"));
        assert_eq!((head.status, fields(&head)), (get.status, fields(&get)), "{what} {target}");
        let is_in_chunks = get.header("transfer-encoding").is_some();
        let length = (!is_in_chunks).then(|| get.body.len().to_string());
        assert_eq!(head.header("content-length"), length.as_deref(), "{what} {target}");
    }
}

fn assert_of_routes(client: &Client, what: &str) {
    for text in ["short", &"long ".repeat(60_000)] {
        client.post(&format!("/api/v2/update?{QUERY}"), text).ok();
        for route in Route::ALL {
            let target = format!("/api/v2/{}?{QUERY}", route.as_str());
            let is_read = route.methods().allow("GET") && !route.writes();
            // The connection's number, which `status` names, stays the same.
            if is_read {
                assert_same_head(client, &target, what);
                continue;
            }
            let answer = client.request("HEAD", &target, "", None);
            assert_eq!(answer.status, 405, "{what} {target}");
            assert!(!answer.header("allow").unwrap().contains("HEAD"), "{what} {target}");
        }
    }
    // Empty texts and refusals too.
    for target in [
        "select?p=none&c=1.1.1",
        "get?p=none",
        "delta?p=none",
        "toc?p=none",
        "json-export?p=none",
        "query?p=none&set=1.1.1",
    ] {
        assert_same_head(client, &format!("/api/v2/{target}"), what);
    }
    for target in [
        "/health",
        "/api/v2/none",
        "/api/v2/select?p=text&c=none",
        "/api/v2/get?p=../x",
        "/api/v2/select?p=%FF",
    ] {
        assert_same_head(client, target, what);
    }
    for route in Route::ALL {
        let answer = client.request("PUT", &format!("/api/v2/{}?{QUERY}", route.as_str()), "", None);
        let listed = answer.header("allow").unwrap().split(", ").any(|method| method == "HEAD");
        assert_eq!(listed, route.methods().allow("HEAD"), "{what} {answer}");
    }
    assert!(client.get(&format!("/api/v2/select?{QUERY}")).ok().starts_with("long"), "nothing was written");
}

#[test]
fn clients_port_and_workers_answer_head() {
    let running = Deployment::start(&Setup::default());
    assert_of_routes(&running.client_of("alice"), "the gateway");
    assert_of_routes(&running.slot(1342, Some(&key_of("bob"))), "a worker");
    let folder = tempfile::tempdir().unwrap();
    assert_of_routes(&LoneWorker::start(folder.path()).client, "a worker alone");
}

#[test]
fn read_only_key_may_send_head() {
    let tenant = sq_tests::setup::Tenant::new("alice", 1341).with_key("reads", "read", None);
    let running = Deployment::start(&Setup { tenants: vec![tenant], ..Setup::default() });
    let reader = running.client(Some("reads"));
    assert_eq!(reader.request("HEAD", &format!("/api/v2/select?{QUERY}"), "", None).status, 200);
    assert_eq!(reader.request("HEAD", &format!("/api/v2/update?{QUERY}&s=x"), "", None).status, 405);
    assert!(running.stored().is_empty());
}

#[test]
fn operators_ports_answer_head() {
    let running = Deployment::start(&Setup::default());
    let pool: SocketAddr = address::at(running.address, 1339);
    for (client, target) in [
        (running.admin(), "/health"),
        (running.admin(), "/ready"),
        (running.admin(), "/metrics"),
        (running.admin(), "/admin/tenants"),
        (running.admin(), "/admin/tenants/alice"),
        (running.admin(), "/admin/tenants/alice/stats"),
        (Client::new(pool, None), "/health"),
        (Client::new(pool, None), "/status"),
        (Client::new(pool, None), "/metrics"),
    ] {
        let (head, get) = (client.request("HEAD", target, "", None), client.get(target));
        assert_eq!((head.status, head.header("content-type")), (200, get.header("content-type")), "{target}");
        // The length of the metrics may change meanwhile.
        let has_length = |answer: &Answer| answer.header("content-length").is_some();
        assert!(has_length(&head) && has_length(&get), "{target}: {head}");
    }
}

/// Web pages may send HEAD too.
#[test]
fn preflight_allows_head() {
    let cors = "allow_origins = [\"*\"]".to_owned();
    let running = Deployment::start(&Setup { cors, ..Setup::default() });
    let page = "Origin: https://app.example.org\r\nAccess-Control-Request-Method: HEAD\r\n";
    let answer = running.client(None).request("OPTIONS", &format!("/api/v2/get?{QUERY}"), page, None);
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, POST, OPTIONS"));
    assert!(answer.header("access-control-allow-headers").unwrap().contains("If-None-Match"));
    assert!(answer.header("access-control-expose-headers").unwrap().contains("ETag"));
}
