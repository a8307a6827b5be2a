//! One entry of an old registry is one customer. Every command that reads such a file refuses ambiguous entries with their
//! lines. A disabled entry grants no access.

use std::fs;
use std::path::PathBuf;

use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::root::Root;
use sq_tests::scrape::reload_by;
use sq_tests::setup::{ADMIN_KEY, Setup};
use sq_tests::target::{SELECT, UPDATE};

/// An entry of the Python gateway's registry; it has five lines.
fn python(token: &str, name: &str, port: u16, phext: &str) -> String {
    format!("[[tenants]]\ntoken = \"{token}\"\nname = \"{name}\"\nport = {port}\nphext = \"{phext}\"\n")
}

/// A JSON list with one entry per line; the first is on line 2.
fn listed(head: &str, entries: &[&str]) -> String {
    format!("{{{head}\"tenants\": [\n{}\n]}}\n", entries.join(",\n"))
}

/// A JSON object with one member per line; the first is on line 2.
fn by_token(members: &[&str]) -> String {
    format!("{{\"tenants\": {{\n{}\n}}}}\n", members.join(",\n"))
}

/// An old file, the position of its mistake, and the line of the earlier entry.
struct Refused {
    what: &'static str,
    text: String,
    line: usize,
    earlier: usize,
}

fn refused(what: &'static str, text: String, line: usize, earlier: usize) -> Refused {
    Refused { what, text, line, earlier }
}

fn merged() -> Vec<Refused> {
    let admin = "\"admin_key\": \"x\", ";
    let alice = r#"{"id": "alice", "api_key": "t1", "data_dir": "d/a", "enabled": true}"#;
    vec![
        refused("another port", python("t1", "alice", 1341, "a") + &python("t2", "alice", 1342, "a"), 8, 1),
        refused("another phext", python("t1", "alice", 1341, "a") + &python("t2", "alice", 1341, "b"), 8, 1),
        refused("another token", python("t1", "alice", 1341, "a") + &python("t2", "alice", 1341, "a"), 8, 1),
        refused(
            "one name once changed",
            python("t1", "Bob B", 1341, "a") + &python("t2", "bob-b", 1342, "b"),
            3,
            6,
        ),
        refused(
            "one disabled",
            listed(
                admin,
                &[alice, r#"{"id": "alice", "api_key": "t2", "data_dir": "d/a", "enabled": false}"#],
            ),
            3,
            2,
        ),
        refused(
            "the first disabled",
            listed(
                admin,
                &[r#"{"id": "alice", "api_key": "t2", "data_dir": "d/a", "enabled": false}"#, alice],
            ),
            3,
            2,
        ),
        refused(
            "two quotas",
            listed(admin, &[alice, r#"{"id": "alice", "api_key": "t2", "data_dir": "d/a", "quota_mb": 9}"#]),
            3,
            2,
        ),
        refused(
            "one name and directory",
            by_token(&[r#""t1": {"name": "a", "data_dir": "d"}"#, r#""t2": {"name": "a", "data_dir": "d"}"#]),
            3,
            2,
        ),
        refused(
            "one directory of the router's",
            listed(
                "",
                &[
                    r#"{"token": "t1", "port": 1341, "data_dir": "d/a"}"#,
                    r#"{"token": "t2", "port": 1342, "data_dir": "d/a"}"#,
                ],
            ),
            3,
            2,
        ),
    ]
}

fn with_one_key_twice() -> Vec<Refused> {
    vec![
        refused(
            "one member twice",
            by_token(&[
                r#""t": {"name": "a", "data_dir": "d/a"}"#,
                r#""\u0074": {"name": "b", "data_dir": "d/b"}"#,
            ]),
            3,
            2,
        ),
        refused(
            "the router's",
            listed(
                "",
                &[
                    r#"{"token": "t", "port": 1341, "data_dir": "d/a"}"#,
                    r#"{"token": "t", "port": 1342, "data_dir": "d/b"}"#,
                ],
            ),
            3,
            2,
        ),
        refused("Python's", python("t", "alice", 1341, "a") + &python("t", "bob", 1342, "b"), 7, 1),
        refused(
            "a disabled one's",
            listed(
                "\"admin_key\": \"x\", ",
                &[
                    r#"{"id": "a", "api_key": "t", "data_dir": "d/a", "enabled": false}"#,
                    r#"{"id": "b", "api_key": "t", "data_dir": "d/b"}"#,
                ],
            ),
            3,
            2,
        ),
    ]
}

/// `import`, `check` and `up` refuse the file with its line, and write nothing.
fn assert_refused(wanted: &Refused, words: &str) {
    let Refused { what, text, line, earlier } = wanted;
    let setup = Setup { gateway: "tenants = \"old\"".to_owned(), ..Setup::default() };
    let root = Root::without_registry(&setup);
    root.write("old", text);
    for arguments in [
        &["import", "old", "--out", "tenants.toml", "--root", "."][..],
        &["check", "--config", "gateway.toml"],
        &["up", "--root", ".", "--tenants", "old"],
    ] {
        let outcome = root.gateway(arguments);
        let told = &outcome.stderr;
        assert_eq!(outcome.code(), Some(1), "{what}: {arguments:?} {outcome:?}");
        assert!(told.contains(&format!("old:{line}:")), "{what}: {arguments:?} names no line {line}: {told}");
        assert!(told.contains(&earlier.to_string()) && told.contains(words), "{what}: {arguments:?} {told}");
        assert!(!told.contains("pmb-v1-"), "{what}: a key is shown: {told}");
    }
    assert!(!root.registry().exists(), "{what}: a registry was written");
}

#[test]
fn entries_that_cannot_be_told_apart_are_refused_with_their_lines() {
    for wanted in merged() {
        assert_refused(&wanted, "each entry is one customer");
    }
}

#[test]
fn key_in_two_entries_is_refused_with_their_lines() {
    for wanted in with_one_key_twice() {
        assert_refused(&wanted, "have the same key");
    }
}

#[test]
fn file_in_both_formats_loses_no_entry() {
    let root = Root::without_registry(&Setup::default());
    root.write("both", &(python("t", "alice", 1341, "a") + "[[tenant]]\nname = \"bob\"\nport = 1342\n"));
    let outcome = root.gateway(&["import", "both", "--root", "."]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("both:1:") && outcome.stderr.contains("tenants"), "{outcome:?}");
}

fn write(client: &Client, text: &str) {
    client.post(UPDATE, text).ok();
}

#[test]
fn entries_with_distinct_directories_are_accepted() {
    let formats = [
        by_token(&[
            r#""t1": {"name": "Alice", "data_dir": "x/alice"}"#,
            r#""t2": {"name": "alice", "data_dir": "y/alice"}"#,
        ]),
        listed(
            "",
            &[
                r#"{"token": "t1", "port": 1341, "data_dir": "x/alice"}"#,
                r#"{"token": "t2", "port": 1342, "data_dir": "y/alice"}"#,
            ],
        ),
        listed(
            "\"admin_key\": \"x\", ",
            &[
                r#"{"id": "alice", "api_key": "t1", "data_dir": "x/alice"}"#,
                r#"{"id": "alice", "api_key": "t2", "data_dir": "y/alice"}"#,
            ],
        ),
        python("t1", "alice", 1341, "a")
            + "data_dir = \"x/alice\"\n"
            + &python("t2", "alice", 1342, "a")
            + "data_dir = \"y/alice\"\n",
    ];
    for text in formats {
        let root = Root::without_registry(&Setup::default());
        root.write("old", &text);
        let printed = root.gateway(&["import", "old", "--root", "."]).success();
        assert!(printed.contains("is now alice-2") && printed.contains("line"), "{text}{printed}");
        let registry = root.read("tenants.toml");
        assert_eq!(registry.matches("[[tenant.key]]").count(), 2, "{registry}");
        let running = Deployment::up(root, &[]);
        assert_eq!(running.tenants, 2);
        for (key, folder) in [("t1", "x"), ("t2", "y")] {
            let client = running.client(Some(key));
            write(&client, key);
            assert_eq!(client.get(SELECT).ok(), key, "{text}");
            let is_there = |path: &PathBuf| path.starts_with(format!("{folder}/alice"));
            assert!(running.stored().keys().any(is_there), "{key} is not in {folder}");
        }
    }
}

#[test]
fn a_disabled_entry_opens_nothing() {
    let root = Root::without_registry(&Setup::default());
    fs::create_dir_all(root.join("d/a")).unwrap();
    root.write("d/a/text.phext", "hers");
    let entries = [
        r#"{"id": "alice", "api_key": "t1", "data_dir": "d/a", "enabled": false}"#,
        r#"{"id": "Alice", "api_key": "t2", "data_dir": "d/b", "enabled": true}"#,
    ];
    root.write("old", &listed("\"admin_key\": \"x\", ", &entries));
    let running = Deployment::up(root, &["--tenants", "old"]);
    let (disabled, enabled) = (running.client(Some("t1")), running.client(Some("t2")));
    disabled.get(SELECT).problem(403, "tenant_suspended");
    assert_eq!(enabled.get(SELECT).ok(), "");
    write(&enabled, "his");
    // The same in the formats without such a field.
    let python = python("t1", "alice", 1341, "a") + "enabled = false\n" + &python("t2", "bob", 1342, "b");
    reload_by(&running, "accepted", || running.write("old", &python));
    disabled.get(SELECT).problem(403, "tenant_suspended");
    assert_eq!(running.read("d/a/text.phext"), "hers");
}

#[test]
fn reload_that_would_merge_customers_changes_nothing() {
    let root = Root::without_registry(&Setup::default());
    let alice = python("t1", "alice", 1341, "a");
    root.write("old", &alice);
    let running = Deployment::up(root, &["--tenants", "old"]);
    write(&running.client(Some("t1")), "hers");
    let merged = alice.clone() + &python("t2", "alice", 1342, "b");
    reload_by(&running, "rejected", || running.write("old", &merged));
    assert!(running.log().contains("old:8:8: "), "{}", running.log());
    running.client(Some("t2")).get(SELECT).problem(401, "invalid_key");
    assert_eq!(running.client(Some("t1")).get(SELECT).ok(), "hers");
    // With a distinct name, the second customer is served, and cannot read the first one's data.
    reload_by(&running, "accepted", || running.write("old", &(alice + &python("t2", "bob", 1342, "b"))));
    assert_eq!(running.client(Some("t2")).get(SELECT).ok(), "");
}

/// The admin key and other settings beside the tenants have no place in the native registry.
#[test]
fn settings_beside_the_tenants_are_reported_as_ignored() {
    let entry = r#"{"id": "zoe", "api_key": "tok-1", "data_dir": "zoe"}"#;
    let by_token = r#""tenants": {"tok-1": {"name": "zoe", "data_dir": "zoe"}}}"#;
    for (text, told) in [
        (listed("\"admin_key\": \"old-admin-key\", ", &[entry]), "admin_key is not taken over"),
        (format!("{{\"admin_key\": \"old-admin-key\", {by_token}"), "admin_key is not taken over"),
        (
            "admin_key = \"old-admin-key\"\n".to_owned() + &python("tok-1", "zoe", 1341, "z"),
            "admin_key is not taken over",
        ),
        (listed("\"listen\": \"0.0.0.0:80\", ", &[entry]), "\"listen\", beside the tenants, is unknown here"),
        (
            "[server]\nport = 80\n".to_owned() + &python("tok-1", "zoe", 1341, "z"),
            "\"server\", beside the tenants",
        ),
    ] {
        let root = Root::without_registry(&Setup::default());
        root.write("old", &text);
        let imported = root.with_config(&["import", "old", "--out", "new.toml"]).success();
        assert!(imported.contains(told), "{text}: {imported}");
        root.write_registry(&text);
        let checked = root.with_config(&["check"]);
        assert!(checked.stderr.contains(told) && !checked.stderr.contains("old-admin-key"), "{checked:?}");
        assert_eq!(checked.success().trim(), "ok");
        let running = Deployment::up(root, &["--tenants", "old"]);
        assert!(running.log().contains(told), "{text}: {}", running.log());
        assert!(
            !imported.contains("old-admin-key") && !running.log().contains("old-admin-key"),
            "a key is shown"
        );
        // The key in the config is the same.
        assert_eq!(running.admin().get("/admin/tenants").status, 200);
        assert_eq!(running.admin_with(Some("old-admin-key")).get("/admin/tenants").status, 401);
        running.client(Some("tok-1")).get(SELECT).ok();
    }
}

#[test]
fn existing_admin_key_is_not_lost() {
    let entry = r#"{"id": "zoe", "api_key": "tok-1", "data_dir": "zoe"}"#;
    for key in [ADMIN_KEY, ""] {
        let root = Root::without_registry(&Setup::default());
        root.write("old", &listed(&format!("\"admin_key\": \"{key}\", "), &[entry]));
        let running = Deployment::up(root, &["--tenants", "old"]);
        assert!(!running.log().contains("admin_key"), "{}", running.log());
        assert_eq!(running.admin_with(Some(ADMIN_KEY)).get("/admin/tenants").status, 200);
    }
}
