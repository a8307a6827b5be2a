//! `RateLimit-Policy` and `RateLimit`: parsed strictly as structured fields (RFC 8941), in the form of
//! draft-ietf-httpapi-ratelimit-headers-11, with true values.

use sfv::{BareItem, ListEntry, Parser};
use sq_tests::answer::Answer;
use sq_tests::deployment::Deployment;
use sq_tests::setup::Setup;
use sq_tests::target::SELECT;

/// A policy with its remaining count.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rate {
    name: String,
    quota: i64,
    window_s: i64,
    remaining: i64,
    reset_s: i64,
}

/// The members of a list of strings, each with its integer parameters in order.
fn members(answer: &Answer, field: &str) -> Vec<(String, Vec<(String, i64)>)> {
    let value = answer.header(field).unwrap_or_default();
    let parsed =
        Parser::parse_list(value.as_bytes()).unwrap_or_else(|error| panic!("{field}: {value}: {error}"));
    let integer = |item: &BareItem| match item {
        BareItem::Integer(number) => *number,
        other => panic!("{field}: {value}: {other:?} is no integer"),
    };
    let member = |entry: ListEntry| match entry {
        ListEntry::Item(item) => {
            let BareItem::String(name) = item.bare_item else { panic!("{field}: {value}: no string") };
            (name, item.params.iter().map(|(key, item)| (key.clone(), integer(item))).collect())
        }
        ListEntry::InnerList(_) => panic!("{field}: {value}: an inner list"),
    };
    parsed.into_iter().map(member).collect()
}

/// Both fields of a response, each checked alone and against the other.
fn rates(answer: &Answer) -> Vec<Rate> {
    let (policies, states) = (members(answer, "ratelimit-policy"), members(answer, "ratelimit"));
    assert_eq!(policies.len(), states.len(), "{answer}");
    let rate = |((name, policy), (same, state)): ((String, Vec<_>), (String, Vec<_>))| {
        assert_eq!(name, same, "{answer}");
        let [(q, quota), (w, window_s)] = &policy[..] else { panic!("{answer}") };
        let [(r, remaining), (t, reset_s)] = &state[..] else { panic!("{answer}") };
        assert_eq!([q, w, r, t], ["q", "w", "r", "t"], "{answer}");
        let rate =
            Rate { name, quota: *quota, window_s: *window_s, remaining: *remaining, reset_s: *reset_s };
        assert!(rate.window_s > 0 && rate.quota > 0, "{answer}");
        assert!((0..=rate.quota).contains(&rate.remaining), "{answer}");
        assert!((0..=rate.window_s).contains(&rate.reset_s), "{answer}");
        rate
    };
    policies.into_iter().zip(states).map(rate).collect()
}

fn rate_of(answer: &Answer, name: &str) -> Rate {
    let all = rates(answer);
    all.iter()
        .find(|rate| rate.name == name)
        .cloned()
        .unwrap_or_else(|| panic!("no {name}: {all:?}: {answer}"))
}

fn names(answer: &Answer) -> Vec<String> {
    rates(answer).into_iter().map(|rate| rate.name).collect()
}

fn deployment(limits: &str) -> Deployment {
    Deployment::start(&Setup { limits: limits.to_owned(), ..Setup::default() })
}

#[test]
fn remaining_count_and_reset_are_sent() {
    let running = deployment("per_ip = \"4/h\"\nper_tenant = \"10/day\"");
    let client = running.client_of("alice");
    for used in 1..=4 {
        let answer = client.get(SELECT);
        answer.ok();
        assert_eq!(names(&answer), ["ip", "tenant"]);
        let (ip, tenant) = (rate_of(&answer, "ip"), rate_of(&answer, "tenant"));
        assert_eq!((ip.quota, ip.window_s, ip.remaining), (4, 3600, 4 - used), "{answer}");
        assert_eq!((tenant.quota, tenant.window_s, tenant.remaining), (10, 86_400, 10 - used), "{answer}");
        // The time until the count is full again, or, when none is left, until one more is allowed: a quarter of an
        // hour.
        let until_full_s = if ip.remaining == 0 { 900 } else { 900 * used };
        assert!((until_full_s - 60..=until_full_s).contains(&ip.reset_s), "{answer}");
        assert!(answer.header("retry-after").is_none(), "{answer}");
    }
    let refused = client.get(SELECT);
    refused.problem(429, "rate_limited_ip");
    let ip = rate_of(&refused, "ip");
    assert_eq!(ip.remaining, 0);
    assert_eq!(
        u64::try_from(ip.reset_s),
        Ok(refused.retry_after_s()),
        "Retry-After is the end of the window"
    );
    assert_eq!(names(&refused), ["ip"], "the tenant was not asked");
}

#[test]
fn refusal_names_the_exceeded_rate() {
    let running =
        deployment("per_ip = \"1000/h\"\nper_tenant = \"1/h\"\nfailed_keys = \"1/h\"\nin_flight = 64");
    let client = running.client_of("alice");
    client.get(SELECT).ok();
    let refused = client.get(SELECT);
    refused.problem(429, "rate_limited_tenant");
    let tenant = rate_of(&refused, "tenant");
    assert_eq!((tenant.remaining, u64::try_from(tenant.reset_s)), (0, Ok(refused.retry_after_s())));
    assert_eq!(names(&refused), ["ip", "tenant"]);

    let guess = || running.client(Some("guess")).get(SELECT);
    let first = guess();
    first.problem(401, "invalid_key");
    assert_eq!(names(&first), ["ip"]);
    let refused = guess();
    refused.problem(429, "too_many_failed_keys");
    let failed = rate_of(&refused, "failed-keys");
    assert_eq!((failed.quota, failed.remaining), (1, 0));
    assert_eq!(u64::try_from(failed.reset_s), Ok(refused.retry_after_s()));
    assert_eq!(names(&refused), ["ip", "failed-keys"]);
}

#[test]
fn every_response_has_rate_limit_fields() {
    // A proxy is not charged for malformed requests.
    let running = Deployment::start(&Setup {
        gateway: "trusted_proxies = []".to_owned(),
        limits: "per_ip = \"1000/day\"\nper_tenant = \"1000/day\"".to_owned(),
        ..Setup::default()
    });
    let client = running.client_of("alice");
    let mut left = 1000;
    let mut charged = |answer: &Answer, status: u16, by: &[&str]| {
        assert_eq!(answer.status, status, "{answer}");
        assert_eq!(names(answer), by, "{answer}");
        left -= 1;
        assert_eq!(rate_of(answer, "ip").remaining, left, "{answer}");
    };
    charged(&client.get(SELECT), 200, &["ip", "tenant"]);
    charged(&client.post("/api/v2/insert?p=t&c=1.1.1/1.1.1/1.1.1", "x"), 200, &["ip", "tenant"]);
    charged(&client.get("/api/v2/select?p=t&c=0"), 400, &["ip", "tenant"]);
    charged(&client.get("/api/v2/nothing"), 404, &["ip", "tenant"]);
    charged(&client.request("PUT", SELECT, "", None), 405, &["ip", "tenant"]);
    charged(&client.request("HEAD", SELECT, "", None), 200, &["ip", "tenant"]);
    charged(&running.client(None).get(SELECT), 401, &["ip"]);
    charged(&running.client(None).request("OPTIONS", SELECT, "", None), 204, &["ip"]);
    // Refused at the edge, before there is a request.
    charged(&client.raw("GET / HTTP/1.1\r\n\r\n"), 400, &["ip"]);
    charged(&client.raw("nonsense\r\n\r\n"), 400, &["ip"]);
    // These are not charged, and have no fields.
    for path in ["/health", "/ready"] {
        let answer = client.get(path);
        assert!(
            answer.header("ratelimit").is_none() && answer.header("ratelimit-policy").is_none(),
            "{answer}"
        );
    }
}

#[test]
fn without_rates_there_are_no_fields() {
    let running = deployment("");
    for answer in [running.client_of("alice").get(SELECT), running.client(None).get(SELECT)] {
        assert!(
            answer.header("ratelimit").is_none() && answer.header("ratelimit-policy").is_none(),
            "{answer}"
        );
    }
}
