//! Adding, replacing and revoking keys.

use serde_json::{Value, json};
use sq_tests::setup::key_of;

use super::{SELECT, UPDATE, served, start};

const KEYS: &str = "/admin/tenants/alice/keys";

#[test]
fn key_is_added_and_revoked() {
    let (running, api) = start();
    // Without a body, with an empty one, and with an empty object: a key that may write and does not expire.
    for (body, id) in [(None, "k2"), (Some(""), "k3"), (Some("{}"), "k4")] {
        let answer = api.call("POST", KEYS, body);
        assert_eq!((answer.status, &answer.json()["key_id"]), (201, &json!(id)), "{answer}");
        let key = answer.json()["key"].as_str().unwrap().to_owned();
        served(&running, &key);
        assert_eq!(running.client(Some(&key)).post(UPDATE, "hers").ok(), "Updated 4 bytes");
    }
    let reader = api.created(KEYS, r#"{"scope": "read", "expires": "2099-01-01T00:00:00Z"}"#);
    served(&running, &reader);
    running.client(Some(&reader)).post(UPDATE, "x").problem(403, "read_only_key");
    let keys = &api.get("/admin/tenants/alice")["keys"];
    assert_eq!(keys[4]["expires"], json!("2099-01-01T00:00:00Z"), "{keys}");
    let answer = api.call("DELETE", &format!("{KEYS}/k5"), None);
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer}");
    running.client(Some(&reader)).get(SELECT).problem(401, "invalid_key");
    for gone in ["k5", "k9", "%ff", "%2e%2e"] {
        let answer = running.admin().request("DELETE", &format!("{KEYS}/{gone}"), "", None);
        assert_eq!(answer.status, 404, "{gone}: {answer}");
    }
    api.call("DELETE", "/admin/tenants/nobody/keys/k1", None).problem(404, "unknown_tenant");
    api.call("POST", "/admin/tenants/nobody/keys", None).problem(404, "unknown_tenant");
    running.client_of("alice").get(SELECT).ok();
}

#[test]
fn key_is_rotated_in_one_step() {
    let (running, api) = start();
    let (old, ids) = (key_of("alice"), |keys: &Value| -> Vec<String> {
        keys.as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect()
    });
    let second = api.created(KEYS, r#"{"replaces": "k1"}"#);
    running.client(Some(&old)).get(SELECT).problem(401, "invalid_key");
    served(&running, &second);
    assert_eq!(ids(&api.get("/admin/tenants/alice")["keys"]), ["k2"]);

    let third = api.created(KEYS, r#"{"replaces": "k2", "grace_s": 3600}"#);
    [&second, &third].into_iter().for_each(|key| served(&running, key));
    let keys = api.get("/admin/tenants/alice")["keys"].clone();
    assert_eq!(ids(&keys), ["k2", "k3"]);
    assert!(keys[0]["expires"].is_string() && keys[1]["expires"].is_null(), "{keys}");
    api.call("POST", KEYS, Some(r#"{"replaces": "k1"}"#)).problem(404, "unknown_key");
}

#[test]
fn number_of_keys_is_bounded() {
    let (_running, api) = start();
    for _ in 0..99 {
        api.created(KEYS, "{}");
    }
    api.call("POST", KEYS, Some("{}")).problem(409, "too_many_keys");
}

/// The gateway knows the key first; earlier requests wait until the worker has received it.
#[test]
fn key_is_valid_as_soon_as_it_is_returned() {
    let (running, api) = start();
    for number in 0..10 {
        let name = format!("new-{number}");
        let first = api.add(&name);
        assert_eq!(running.client(Some(&first)).post(UPDATE, "one").ok(), "Updated 3 bytes");
        let second = api.created(&format!("/admin/tenants/{name}/keys"), r#"{"replaces": "k1"}"#);
        assert_eq!(running.client(Some(&second)).post(UPDATE, "second").ok(), "Updated 6 bytes");
        running.client(Some(&first)).get(SELECT).problem(401, "invalid_key");
    }
}
