//! Isolation: no key, name or coordinate reaches another tenant's data, or a file outside.

use std::fs;

use sq_shared::route::{Methods, Route};
use sq_tests::client::percent_encoded;
use sq_tests::deployment::Deployment;
use sq_tests::setup::{Setup, Tenant, key_of};
use sq_tests::tree;

const NAMES: [&str; 4] = ["alice", "bob", "carol", "user001"];
const AT: &str = "c=1.1.1/1.1.1/1.1.1";

/// Each tenant has a phext `shared` and one with its own name, both with its secret.
fn deployment() -> Deployment {
    let tenants = NAMES.iter().zip(1341..).map(|(name, port)| Tenant::new(name, port)).collect();
    let running = Deployment::start(&Setup { tenants, ..Setup::default() });
    for name in NAMES {
        for phext in ["shared", name, ""] {
            let target = format!("/api/v2/update?p={phext}&{AT}");
            running.client_of(name).post(&target, secret(name)).ok();
        }
    }
    running
}

fn secret(name: &str) -> String {
    format!("the secret of {name}")
}

#[test]
fn every_key_sees_its_own_data_alone_by_every_route() {
    let running = deployment();
    let stored = running.stored();
    for name in NAMES {
        let client = running.client_of(name);
        for other in NAMES.iter().filter(|other| **other != name) {
            for route in Route::ALL.into_iter().filter(|route| !route.writes()) {
                for phext in ["shared", other, ""] {
                    let range = "from=1.1.1/1.1.1/1.1.1&to=9.9.9/9.9.9/9.9.9";
                    let target = format!("/api/v2/{}?p={phext}&{AT}&{range}", route.as_str());
                    let by_post = route.methods() == Methods::Post;
                    let answer = if by_post { client.post(&target, "text") } else { client.get(&target) };
                    let text = answer.ok();
                    assert!(!text.contains(&secret(other)), "{name} reads {other}'s by {target}: {text}");
                    let names_other = route == Route::Phexts && text.contains(other);
                    assert!(!names_other, "{name} sees {other}'s phexts: {text}");
                }
            }
        }
        assert_eq!(client.get(&format!("/api/v2/select?p=shared&{AT}")).ok(), secret(name));
    }
    assert_eq!(running.stored(), stored, "reading stored something");
}

#[test]
fn a_write_lands_in_the_keys_own_directory_alone() {
    let running = deployment();
    let others_of = |name: &str| -> Vec<_> {
        let is_own = |path: &std::path::Path| path.starts_with(format!("data/{name}"));
        running.stored().into_iter().filter(|(path, _)| !is_own(path)).collect()
    };
    for name in NAMES {
        let others = others_of(name);
        for other in NAMES {
            for command in ["insert", "update", "delete"] {
                running
                    .client_of(name)
                    .post(&format!("/api/v2/{command}?p={other}&{AT}"), "overwritten")
                    .ok();
                running.client_of(name).get(&format!("/api/v2/{command}?p=shared&{AT}&s=overwritten")).ok();
            }
        }
        assert_eq!(others_of(name), others, "{name} changed what is not its own");
        for phext in ["shared", name, ""] {
            running.client_of(name).post(&format!("/api/v2/update?p={phext}&{AT}"), secret(name)).ok();
        }
    }
}

#[test]
fn a_name_that_tries_to_leave_the_directory_is_refused() {
    let running = deployment();
    fs::write(running.join("outside.phext"), "outside").unwrap();
    fs::write(running.join("data/outside.phext"), "outside").unwrap();
    let before = (tree::files(running.path()), running.stored());
    let absolute = running.join("outside").to_str().unwrap().to_owned();
    let leaving = [
        "../outside",
        "../../outside",
        "..\\outside",
        "../bob/bob",
        "a/../../bob/bob",
        "a/b",
        "a\\b",
        "..",
        "/",
    ];
    let leaving: Vec<&str> =
        leaving.into_iter().chain([absolute.as_str(), "/etc/passwd", "..outside"]).collect();
    let client = running.client_of("alice");
    for name in leaving {
        for written in [percent_encoded(name), name.replace("../", "%2e%2e%2f"), name.replace("../", "..%2F")]
        {
            for command in
                ["select", "update", "insert", "delete", "get", "toc", "load", "json-export", "status"]
            {
                let answer = client.get(&format!("/api/v2/{command}?p={written}&{AT}&s=x"));
                answer.problem(403, "forbidden_phext");
                assert!(!answer.text().contains("outside\""), "{answer}");
            }
            client.post(&format!("/api/v2/update?p={written}&{AT}"), "x").problem(403, "forbidden_phext");
        }
    }
    for name in [".hidden", "a\0b", "a\nb", "a\u{7f}", "."] {
        let answer = client.get(&format!("/api/v2/update?p={}&{AT}&s=x", percent_encoded(name)));
        answer.problem(400, "invalid_phext");
    }
    // Decoded once, this is the harmless name `%2e%2e%2foutside`; decoded twice, it would leave.
    client.get(&format!("/api/v2/select?p=%252e%252e%252foutside&{AT}")).ok();
    assert_eq!((tree::files(running.path()), running.stored()), before, "a file appeared or changed");
}

#[test]
fn a_form_cannot_name_a_phext_outside_either() {
    let running = deployment();
    let before = running.stored();
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let body = format!("p={}&c=1.1.1/1.1.1/1.1.1&s=x", percent_encoded("../bob/bob"));
    let answer = running.client_of("alice").request("POST", "/api/v2/update", form, Some(body.as_bytes()));
    answer.problem(403, "forbidden_phext");
    assert_eq!(running.stored(), before);
}

#[test]
fn a_path_is_not_a_way_around_the_routes() {
    let running = deployment();
    let client = running.client_of("alice");
    for path in [
        "/api/v2/../v2/select",
        "/api/v2//select",
        "/data/bob/bob.phext",
        "/%2e%2e/bob",
        "/api/v2/select/..%2fget",
    ] {
        let answer = client.get(&format!("{path}?p=bob&{AT}"));
        answer.problem(404, "unknown_route");
    }
}

#[test]
fn a_namespace_is_checked_then_taken_off() {
    let running = deployment();
    let before = running.stored();
    for name in NAMES {
        let client = running.client_of(name);
        let own = format!("/api/v2/select?p=shared&c={name}.1.1.1/1.1.1/1.1.1");
        assert_eq!(client.get(&own).ok(), secret(name));
        for other in NAMES.iter().chain(&["nobody", "user002"]).filter(|other| **other != name) {
            for at in ["1.1.1/1.1.1/1.1.1", "2.3.4/5.6.7/8.9.10"] {
                for command in ["select", "insert", "update", "delete"] {
                    let target = format!("/api/v2/{command}?p=shared&c={other}.{at}&s=x");
                    client.get(&target).problem(403, "foreign_namespace");
                }
            }
        }
        for wrong in
            [format!("{name}.{name}.1.1.1/1.1.1/1.1.1"), format!("{name}1.1.1/1.1.1/1.1.1"), name.to_owned()]
        {
            let answer = client.get(&format!("/api/v2/update?p=shared&c={wrong}&s=x"));
            assert!([400, 403].contains(&answer.status), "{wrong}: {answer}");
        }
    }
    assert_eq!(running.stored(), before, "a namespace that was refused stored something");

    let client = running.client_of("user001");
    client.get("/api/v2/update?p=deep&c=user001.2.3.4/5.6.7/8.9.10&s=here").ok();
    assert_eq!(client.get("/api/v2/select?p=deep&c=2.3.4/5.6.7/8.9.10").ok(), "here");
    assert_eq!(client.get("/api/v2/select?p=deep&c=1.2.3/4.5.6/7.8.10").ok(), "");
}

#[test]
fn another_tenants_slot_refuses_the_key() {
    let running = deployment();
    let before = running.stored();
    for (name, port) in NAMES.iter().zip(1341..) {
        for other in NAMES.iter().filter(|other| *other != name) {
            let stranger = running.slot(port, Some(&key_of(other)));
            for command in ["select", "update", "get", "delete", "toc"] {
                let target = format!("/api/v2/{command}?p=shared&{AT}&s=x");
                stranger.get(&target).refused(401, "invalid_key");
            }
        }
    }
    assert_eq!(running.stored(), before);
}
