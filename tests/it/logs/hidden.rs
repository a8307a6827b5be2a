//! A phext's name may contain characters that are invisible or change the reading direction. Where it is printed,
//! they are made visible.

use std::fs;
use std::process::Command;

use serde_json::Value;
use sq_tests::client::percent_encoded;
use sq_tests::process::run;
use sq_tests::{binaries, wait};

use super::deployment;

/// Names that look like others: reversed, with invisible characters, or with a line separator.
const NAMES: [&str; 7] = [
    "gpj.\u{202e}exe",
    "\u{2066}a\u{2069}",
    "no\u{200b}tes",
    "no\u{200d}tes",
    "two\u{2028}lines\u{2029}",
    "\u{feff}bom",
    "tag\u{e0041}\u{61c}",
];

/// Characters that a terminal would obey or omit.
fn assert_visible(what: &str, text: &str) {
    let hides = |character: char| {
        let is_control = character.is_control() && character != '\n';
        let hidden = NAMES.iter().any(|name| !character.is_ascii() && name.contains(character));
        is_control || hidden
    };
    let line = text.lines().find(|line| line.chars().any(hides));
    assert!(line.is_none(), "{what} hides something: {line:?}");
}

#[test]
fn a_name_hides_nothing_wherever_it_is_written_down() {
    for format in ["text", "json"] {
        let running = deployment(format, "debug");
        let alice = running.client_of("alice");
        for name in NAMES {
            let phext = percent_encoded(name);
            alice.post(&format!("/api/v2/update?p={phext}&c=1.1.1/1.1.1/1.1.1"), "x").ok();
            // Raw bytes in a path, as in the access line.
            let answer = alice.get(&format!("/api/v2/{name}"));
            let id = answer.header("x-request-id").unwrap().to_owned();
            wait::until("the line of the request", || running.log().contains(&id));
            // A worker names the damaged phext in its log and to the client.
            fs::write(running.join(format!("data/alice/broken{name}.phext")), b"\xff").unwrap();
            let broken = alice.get(&format!("/api/v2/get?p={}", percent_encoded(format!("broken{name}"))));
            broken.refused(503, "worker_unavailable");
            assert_visible("a problem", broken.text());
            let escaped: String = name.chars().filter(|character| !character.is_ascii()).take(1).collect();
            let escaped = match format {
                "json" => escaped.encode_utf16().next().map(|unit| format!("\\u{unit:04x}")).unwrap(),
                _ => escaped.escape_unicode().to_string(),
            };
            let is_named = |line: &str| line.contains("damaged") && line.contains(&escaped);
            wait::until("the worker's line", || running.log().lines().any(is_named));
        }
        let directory = running.join("data/alice");
        let fsck = run(Command::new(binaries::worker()).arg("fsck").arg(&directory));
        assert!(fsck.code() == Some(1) && fsck.stdout.contains("gpj.\\u{202e}exe.phext"), "{fsck:?}");
        assert_visible("fsck", &(fsck.stdout + &fsck.stderr));
        let root = running.stop();
        assert_visible("the log", &root.read("up.log"));
        let audit = root.read("audit.log");
        assert_visible("the audit log", &audit);
        let lines = audit.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let named: Vec<Value> = lines.map(|line| line["phext"].clone()).collect();
        assert_eq!(named, NAMES, "the names are no longer exact");
    }
}

#[test]
fn paths_and_names_that_commands_print_hide_nothing() {
    let root = sq_tests::root::Root::new(&sq_tests::setup::Setup::default());
    let directory = root.join("turned\u{202e}\u{2066}\u{feff}");
    let registry = root.read("tenants.toml");
    let shown = toml_string(directory.to_str().unwrap());
    root.write_registry(&registry.replacen(
        "name = \"alice\"",
        &format!("name = \"alice\"\ndata_dir = {shown}"),
        1,
    ));
    let printed = root.with_config(&["tenants", "show", "alice"]).success();
    assert_visible("tenants show", &printed);
    assert!(printed.contains("turned\\u{202e}"), "{printed}");
    let json = root.with_config(&["tenants", "show", "alice", "--json"]).success();
    assert_visible("tenants show --json", &json);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["data_dir"], directory.to_str().unwrap());
    let fsck = run(Command::new(binaries::worker()).arg("fsck").arg(&directory));
    assert_visible("fsck of no directory", &fsck.stderr);
    root.write_registry("[[tenant]]\nname = \"a\u{202e}b\"\n");
    let check = root.with_config(&["check"]);
    assert_eq!(check.code(), Some(1), "{check:?}");
    assert_visible("check", &check.stderr);
}

/// A TOML string that escapes every character.
fn toml_string(text: &str) -> String {
    let escaped: String = text.chars().map(|character| format!("\\U{:08X}", u32::from(character))).collect();
    format!("\"{escaped}\"")
}
